"""Products of activations and weights, whether a weight is one array or is composed of several."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx

from alpacare_jax.model import fp8

SUM_BLOCK = 192
"""Terms summed at once by a CPU at precision "highest"; the block of the libraries that torch multiplies with."""


@runtime_checkable
class ComposedWeight(Protocol):
    """A weight that is not one array: a pytree that multiplies by itself, such as one with an adapter beside it.

    Every array in it has the leading layer axis of the weight that it represents.
    """

    def multiply(self, equation: str, x: jax.Array, precision: str) -> jax.Array:
        """Return what :func:`multiply` returns for the array that it represents."""


def project(
    equation: str, x: jax.Array, weight: nnx.Param, bias: nnx.Param | None, precision: str = "default"
) -> jax.Array:
    """Multiply by a weight in the dtype of ``x`` and add the bias, where there is one.

    Args:
        equation: As of einsum; the last axes of ``x`` are summed with the first of the weight.
        x: Activations.
        weight: The parameter.
        bias: The parameter that is added, or None.
        precision: ``precision`` of :class:`ComputeConfig`, or "fp8" where that is its ``matmul``.
    """
    held = weight.get_value()
    if isinstance(held, ComposedWeight):
        y = held.multiply(equation, x, precision)
    else:
        y = multiply(equation, x, held, precision)
    if bias is None:
        return y
    offset = bias[...].astype(x.dtype)
    return y + offset.reshape((1,) * (y.ndim - offset.ndim) + offset.shape)


def multiply(equation: str, x: jax.Array, weight: jax.Array, precision: str = "default") -> jax.Array:
    """Multiply by an array in the dtype of ``x``; arguments as for :func:`project`."""
    value = weight.astype(x.dtype)
    if precision == fp8.NAME and x.dtype == jnp.bfloat16:
        return fp8.multiply_fp8(equation, x, value)
    if precision == "highest" and x.dtype == jnp.float32:
        return multiply_precisely(x, value, summed_axes(equation))
    return jnp.einsum(equation, x, value)


def summed_axes(equation: str) -> int:
    """Count the axes that an equation sums.

    Example:
        >>> summed_axes("BTNH,NHD->BTD")
        2
    """
    inputs, _, output = equation.partition("->")
    return len(set(inputs) - set(output) - {","})


def multiply_precisely(x: jax.Array, weight: jax.Array, summed: int) -> jax.Array:
    """Sum the last ``summed`` axes of ``x`` with the first ones of the weight, in fp32 with little rounding error.

    Returns:
        The product, of shape ``x.shape[:-summed] + weight.shape[summed:]``.
    """
    rows = x.reshape(*x.shape[: x.ndim - summed], -1)
    columns = weight.reshape(rows.shape[-1], -1)
    # Blocks would cut across shards; there the parts that devices sum are shorter anyway.
    whole = jax.default_backend() != "cpu" or jax.sharding.get_abstract_mesh().size > 1
    block = rows.shape[-1] if whole else SUM_BLOCK
    y = None
    for at in range(0, rows.shape[-1], block):
        part = jnp.matmul(rows[..., at : at + block], columns[at : at + block], precision="highest")
        y = part if y is None else y + part
    assert y is not None
    return y.reshape(*x.shape[: x.ndim - summed], *weight.shape[summed:])
