"""How an optimiser's moments are stored between steps: fp32, bfloat16, or 8 bits in blocks with a scale each.

Arithmetic is fp32: a step reads the stored moments, updates them, and stores them again. In fewer bits the change of a
slow average in one step is less than half the distance of two values, and rounding to the nearest would stop it. So
moments are rounded stochastically, and stay right on average.

Source: Dettmers et al. 2021 (8-bit optimisers by blockwise quantisation). Where they look values up in a table of 256,
values here follow a power law, which has about the same range and needs no table.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alpacare_jax.optim.placement import keys_of, owner_of
from alpacare_jax.optim.rounding import noise, to_bfloat16

BLOCK = 64
"""Elements along the last axis that share a scale."""
SMALLEST = 4096
"""Moments with fewer elements stay fp32 where others take 8 bits."""
SECOND_MOMENTS = ("nu", "v")
"""Names of moments in optax's states that are never negative."""


class Blocks(NamedTuple):
    """An array in 8 bits: codes of its shape, and an fp32 scale for every block along the last axis.

    With c the code, a signed value is ``scale * (c / 127)^3``; one that is never negative is
    ``scale * (c / 255)^4``, and 0 only where it is exactly 0.
    """

    codes: jax.Array
    scales: jax.Array


def encode(x: jax.Array, bits: jax.Array, *, signed: bool) -> Blocks:
    """Store fp32 values in 8 bits, rounded stochastically so that the mean is exact.

    Args:
        x: Values; the last axis is a multiple of :data:`BLOCK`.
        bits: Random uint32 of the same shape.
        signed: Whether values may be negative.
    """
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    scales = jnp.abs(blocks).max(axis=-1)
    share = jnp.abs(blocks) / jnp.where(scales > 0, scales, 1)[..., None]
    most, power = (127, 3) if signed else (255, 4)
    lower = jnp.floor(most * share ** (1 / power))
    below, above = (lower / most) ** power, ((lower + 1) / most) ** power
    chance = (bits >> 8).astype(jnp.float32).reshape(blocks.shape) * 2.0**-24
    codes = lower + (chance * (above - below) < share - below)
    if signed:
        codes = jnp.clip(codes, 0, most) * jnp.sign(blocks)
        return Blocks(codes.astype(jnp.int8).reshape(x.shape), scales)
    codes = jnp.where(share > 0, jnp.clip(codes, 1, most), 0)
    return Blocks(codes.astype(jnp.uint8).reshape(x.shape), scales)


def decode(stored: Blocks) -> jax.Array:
    """Return the fp32 values of an array in 8 bits."""
    codes = stored.codes.astype(jnp.float32).reshape(*stored.scales.shape, BLOCK)
    signed = stored.codes.dtype == jnp.int8
    share = (codes / 127) ** 3 if signed else (codes / 255) ** 4
    return (share * stored.scales[..., None]).reshape(stored.codes.shape)


class StoredState(NamedTuple):
    """The state of :func:`stored`: how many steps were taken, and the inner state with its moments encoded."""

    steps: jax.Array
    inner: Any


def stored(inner: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
    """Store the moments of an optimiser in a dtype, and let it compute in fp32 whatever the parameters are.

    Args:
        inner: The optimiser.
        dtype: "float32" (the state is the inner one's), "bfloat16" or "int8".

    Returns:
        An optimiser whose updates are fp32.
    """
    inner = optax.with_extra_args_support(inner)

    def in_fp32(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

    def run(updates: Any, state: Any, params: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
        return inner.update(in_fp32(updates), state, None if params is None else in_fp32(params), **extra)

    if dtype == "float32":
        return optax.GradientTransformationExtraArgs(
            lambda params: inner.init(in_fp32(params)),
            lambda updates, state, params=None, **extra: run(updates, state, params, extra),
        )

    def init(params: Any) -> StoredState:
        owners = {keys_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

        def begin(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array | Blocks:
            if owner_of(path, owners) != leaf.shape:
                return leaf
            return _zeros(path, leaf, dtype)

        begun = jax.tree_util.tree_map_with_path(begin, inner.init(in_fp32(params)))
        return StoredState(jnp.int32(0), begun)

    def update(updates: Any, state: StoredState, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        tree: Any
        before, tree = jax.tree.flatten(state.inner, is_leaf=_is_blocks)
        moments = tree.unflatten(_read(leaf) for leaf in before)
        updates, moments = run(updates, moments, params, extra)
        after = tree.flatten_up_to(moments)
        written = [
            _write(new, old, state.steps, number)
            for number, (old, new) in enumerate(zip(before, after, strict=True))
        ]
        return updates, StoredState(state.steps + 1, tree.unflatten(written))

    return optax.GradientTransformationExtraArgs(init, update)


def _is_blocks(leaf: Any) -> bool:
    return isinstance(leaf, Blocks)


def _zeros(path: tuple[Any, ...], leaf: jax.Array, dtype: str) -> jax.Array | Blocks:
    if dtype == "bfloat16":
        return jnp.zeros(leaf.shape, jnp.bfloat16)
    if leaf.size < SMALLEST or leaf.shape[-1] % BLOCK:
        return leaf
    fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
    positive = any(name in SECOND_MOMENTS for name in fields)
    codes = jnp.zeros(leaf.shape, jnp.uint8 if positive else jnp.int8)
    return Blocks(codes, jnp.zeros((*leaf.shape[:-1], leaf.shape[-1] // BLOCK), jnp.float32))


def _read(leaf: jax.Array | Blocks) -> jax.Array:
    if isinstance(leaf, Blocks):
        return decode(leaf)
    return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf


def _write(new: jax.Array, old: jax.Array | Blocks, steps: jax.Array, number: int) -> jax.Array | Blocks:
    """Store a moment as it was stored before."""
    if isinstance(old, Blocks):
        return encode(new, noise(new.shape, steps, number), signed=old.codes.dtype == jnp.int8)
    return to_bfloat16(new, noise(new.shape, steps, number)) if old.dtype == jnp.bfloat16 else new
