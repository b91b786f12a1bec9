"""Heads that devices cannot share evenly: spread over slots that they can, and collected again.

Nine query heads that share three key/value heads do not divide by two. Attention then computes with a few heads of
zeros more, or with key/value heads that several devices hold, so that every device has whole groups of its own. The
slots exist only within attention: weights, their gradients and all that is saved have the model's own heads.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alpacare_jax import sharding

HEADS = 2
"""The axis of heads in queries, keys and values."""


@dataclasses.dataclass(frozen=True)
class HeadLayout:
    """Which slot holds which head.

    Every key/value head is there ``copies`` times, each with ``group`` of its query heads; a slot beyond the heads
    there are holds zeros.

    Args:
        heads: Query heads of the model (N).
        kv_heads: Key/value heads of the model (K).
        copies: How often each key/value head is there.
        group: Query slots that share a key/value slot.
        kv_slots: Key/value slots, a multiple of the devices that share them.
    """

    heads: int
    kv_heads: int
    copies: int
    group: int
    kv_slots: int

    @property
    def slots(self) -> int:
        """Query slots."""
        return self.kv_slots * self.group

    @property
    def is_plain(self) -> bool:
        """Whether slots and heads are the same."""
        return self.slots == self.heads and self.kv_slots == self.kv_heads

    def spread_queries(self, x: Float[Array, "B T N H"]) -> Float[Array, "B T slots H"]:
        """Put query heads into their slots."""
        if self.slots == self.heads:
            return x
        x = x.reshape(*x.shape[:HEADS], self.kv_heads, -1, *x.shape[HEADS + 1 :])
        x = _filled(x, HEADS + 1, self.copies * self.group)
        x = x.reshape(*x.shape[:HEADS], self.kv_heads * self.copies, self.group, *x.shape[HEADS + 2 :])
        return _merged(_filled(x, HEADS, self.kv_slots))

    def spread_keys(self, x: Float[Array, "B S K H"]) -> Float[Array, "B S kv_slots H"]:
        """Put key or value heads into their slots."""
        if self.copies > 1:
            x = jnp.repeat(x, self.copies, axis=HEADS)
        return _filled(x, HEADS, self.kv_slots)

    def collect(self, x: Float[Array, "B T slots H"]) -> Float[Array, "B T N H"]:
        """Undo :meth:`spread_queries`."""
        if self.slots == self.heads:
            return x
        x = x[:, :, : self.kv_heads * self.copies * self.group]
        x = x.reshape(*x.shape[:HEADS], self.kv_heads, self.copies * self.group, *x.shape[HEADS + 1 :])
        return _merged(x[:, :, :, : self.heads // self.kv_heads])


@functools.cache
def layout_over(heads: int, kv_heads: int, shards: int) -> HeadLayout:
    """Return the layout with the least slots over a number of devices.

    Example:
        >>> layout_over(32, 8, 4).is_plain, layout_over(64, 8, 16).slots, layout_over(9, 3, 2).slots
        (True, 64, 12)
    """

    def with_copies(copies: int) -> HeadLayout:
        group = -(-heads // (kv_heads * copies))
        return HeadLayout(heads, kv_heads, copies, group, -(-kv_heads * copies // shards) * shards)

    found = [with_copies(copies) for copies in range(1, heads // kv_heads + 1)]
    return min(found, key=lambda layout: (layout.slots + layout.kv_slots, layout.copies))


def layout_here(heads: int, kv_heads: int) -> HeadLayout:
    """Return the layout over the mesh in scope."""
    return layout_over(heads, kv_heads, sharding.shards_of("heads"))


def _filled(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Fill an axis up with zeros."""
    more = [(0, 0)] * x.ndim
    more[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, more) if more[axis][1] else x


def _merged(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:HEADS], -1, *x.shape[HEADS + 2 :])
