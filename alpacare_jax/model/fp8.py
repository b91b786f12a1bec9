"""Matrix products of 8-bit floats, as an opt-in: e4m3 forward, e5m2 for gradients, one scale a tensor.

Each operand is scaled so that its largest number is the largest the format holds, at the moment it is multiplied, so
there is no state and nothing to calibrate. Products are summed in fp32. XLA turns them into one call of cuBLASLt on
GPUs that multiply such floats (compute capability 8.9 and up); elsewhere they are emulated, which only suits tests.

Source: Micikevicius et al. 2022 (FP8 formats for deep learning), section 3.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from alpacare_jax.errors import ConfigError

NAME = "fp8"


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def multiply_fp8(equation: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """Multiply activations by a weight of the same dtype, both rounded to e4m3.

    Args:
        equation: As of einsum, ``"left,right->output"``, no axis in only one operand.
        x: Activations.
        weight: The weight, in the dtype of ``x``.

    Returns:
        The product, in the dtype of ``x``.
    """
    return _forward(equation, x, weight)[0]


def _forward(equation: str, x: jax.Array, weight: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    packed = (*_round(x, jnp.float8_e4m3fn), *_round(weight, jnp.float8_e4m3fn))
    return _product(equation, *packed, x.dtype), packed


def _backward(equation: str, packed: tuple[Any, ...], d_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, x_scale, weight, weight_scale = packed
    gradient, scale = _round(d_y, jnp.float8_e5m2)
    inputs, _, output = equation.partition("->")
    left, _, right = inputs.partition(",")
    d_x = _product(f"{output},{right}->{left}", gradient, scale, weight, weight_scale, d_y.dtype)
    d_weight = _product(f"{left},{output}->{right}", x, x_scale, gradient, scale, d_y.dtype)
    return d_x, d_weight


multiply_fp8.defvjp(_forward, _backward)


def _round(x: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Return a tensor in 8 bits and the fp32 scale that undoes it."""
    largest = jnp.max(jnp.abs(x)).astype(jnp.float32)
    scale = jnp.where(largest > 0, largest, 1) / jnp.finfo(dtype).max.astype(jnp.float32)
    return (x.astype(jnp.float32) / scale).astype(dtype), scale


def _product(
    equation: str, a: jax.Array, a_scale: jax.Array, b: jax.Array, b_scale: jax.Array, dtype: Any
) -> jax.Array:
    y = jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
    return (y * (a_scale * b_scale)).astype(dtype)


def check_device(device: jax.Device) -> None:
    """Refuse a device that cannot multiply 8-bit floats; CPUs emulate them.

    Raises:
        ConfigError: It cannot.
    """
    capability = str(getattr(device, "compute_capability", "0"))
    if device.platform == "cpu" or (device.platform == "gpu" and float(capability) >= 8.9):
        return
    found = f"{device.device_kind}" + (
        f", compute capability {capability}" if device.platform == "gpu" else ""
    )
    raise ConfigError(
        "this device has no products of 8-bit floats",
        where="compute.matmul: fp8",
        found=found,
        expected="a GPU of compute capability 8.9 or later (Ada, Hopper, Blackwell)",
        remedy="set compute.matmul to default",
    )
