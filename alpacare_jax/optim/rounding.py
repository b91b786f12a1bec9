"""Stochastic rounding, reproducible by seed and step: what is rounded off is kept on average.

Source: Gupta et al. 2015 (training with limited precision and stochastic rounding); the mixing function is that of
Wellons' search for 32-bit hashes ("lowbias32").
"""

from typing import Any

import jax
import jax.numpy as jnp

GOLDEN = 0x9E3779B9


def mix(x: jax.Array) -> jax.Array:
    """Scatter the bits of uint32 values; one to one."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


def noise(shape: tuple[int, ...], *seeds: jax.Array | int) -> jax.Array:
    """Return 32 random bits for every element, the same on every mesh: a hash of the seeds and the element's place.

    All operations are elementwise, so that compilers fuse them into their consumer and store nothing.
    """
    hashed = jnp.zeros((1,) * len(shape), jnp.uint32)
    for seed in seeds:
        hashed = mix(hashed + jnp.asarray(seed).astype(jnp.uint32) * jnp.uint32(GOLDEN) + 1)
    for axis, size in enumerate(shape):
        along = (1,) * axis + (size,) + (1,) * (len(shape) - axis - 1)
        place = jax.lax.broadcasted_iota(jnp.uint32, along, axis)
        hashed = mix(hashed + place * jnp.uint32(GOLDEN))
    return hashed


def to_bfloat16(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Round fp32 to one of the two nearest bfloat16, the nearer the likelier, so that the mean is exact.

    Args:
        x: Values, fp32. What is not finite stays what it is.
        bits: Random uint32 of the same shape.
    """
    pattern = jax.lax.bitcast_convert_type(x, jnp.uint32)
    pattern = (pattern + (bits & jnp.uint32(0xFFFF))) & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(pattern, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def apply_updates(
    params: Any, updates: Any, *, rounding: str = "nearest", seed: int = 0, step: jax.Array | int = 0
) -> Any:
    """Add updates to parameters, in fp32, and store them in the parameters' dtype.

    Args:
        params: Parameters.
        updates: What is added, the same tree.
        rounding: Of parameters in bfloat16, "nearest" or "stochastic".
        seed: With the step, fixes what chance does.
        step: Number of the step.
    """

    def add(number: int, param: jax.Array, update: jax.Array) -> jax.Array:
        if param.dtype != jnp.bfloat16 or rounding == "nearest":
            return (param + update).astype(param.dtype)
        moved = param.astype(jnp.float32) + update.astype(jnp.float32)
        return to_bfloat16(moved, noise(param.shape, seed, step, number))

    tree: Any
    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten(
        add(number, param, update)
        for number, (param, update) in enumerate(zip(leaves, tree.flatten_up_to(updates), strict=True))
    )
