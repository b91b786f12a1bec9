"""All tokens of a device against some columns at a time: first the normalisers, then the gradients.

The last tile is moved back until it fits, so that nothing is padded or copied; the columns it shares with the tile
before it count once.
"""

import jax
import jax.numpy as jnp

from alpacare_jax import collectives
from alpacare_jax.loss.projection import NEVER, Projection


def normalise(
    hidden_nD: jax.Array, head: jax.Array, targets_n: jax.Array, projection: Projection, chunk_bytes: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return each token's greatest logit, its sum of exponentials relative to that, and its target's logit; fp32.

    Maximum and sum are carried along from tile to tile (Milakov and Gimelshein 2018). They stay apart, since the
    logarithm of the normaliser would lose the digits behind a large maximum.

    Args:
        hidden_nD: This device's hidden states.
        head: This device's part of the projection, as stored.
        targets_n: Token ids of the whole vocabulary.
        projection: Its layout.
        chunk_bytes: About how many bytes of logits may exist at once.
    """
    tiles = _Tiles(hidden_nD.shape[0], head, projection, chunk_bytes)

    def step(number: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        most, total, picked = carry
        at = tiles.start(number)
        logits = projection.logits(hidden_nD, projection.gathered(head, at, tiles.size))
        logits = jnp.where(tiles.counts(number, at), logits, NEVER)
        higher = jnp.maximum(most, logits.max(axis=-1))
        total = total * jnp.exp(most - higher) + jnp.exp(logits - higher[:, None]).sum(axis=-1)
        hit = tiles.hit(number, at, targets_n)
        return higher, total, picked + jnp.where(hit, logits, 0).sum(axis=-1)

    none_n = jnp.zeros(targets_n.shape, jnp.float32)
    most, total, picked = collectives.repeat(tiles.count, step, (none_n + NEVER, none_n, none_n))
    most_of_all = projection.most_over_columns(most)
    total = projection.over_columns(total * jnp.exp(most - most_of_all))
    return most_of_all, total, projection.over_columns(picked)


def gradients(
    hidden_nD: jax.Array,
    head: jax.Array,
    targets_n: jax.Array,
    weights_n: jax.Array,
    most_n: jax.Array,
    total_n: jax.Array,
    projection: Projection,
    chunk_bytes: int,
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of the hidden states and of this device's part of the projection, in their dtypes.

    Args:
        hidden_nD: This device's hidden states.
        head: This device's part of the projection, as stored.
        targets_n: Token ids of the whole vocabulary.
        weights_n: What each token's loss is multiplied with.
        most_n: As :func:`normalise` gave it.
        total_n: Likewise.
        projection: Its layout.
        chunk_bytes: About how many bytes of logits may exist at once.
    """
    tiles = _Tiles(hidden_nD.shape[0], head, projection, chunk_bytes)

    def step(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        d_hidden, d_head = carry
        at = tiles.start(number)
        gathered = projection.gathered(head, at, tiles.size)
        exponentials = jnp.exp(projection.logits(hidden_nD, gathered) - most_n[:, None])
        probabilities = exponentials / total_n[:, None]
        d_logits = (probabilities - tiles.hit(number, at, targets_n)) * weights_n[:, None]
        d_logits = jnp.where(tiles.counts(number, at), d_logits, 0).astype(hidden_nD.dtype)
        d_hidden = d_hidden + projection.d_hidden(d_logits, gathered)
        d_tile = projection.scattered(projection.d_head(hidden_nD, d_logits)).astype(head.dtype)
        return d_hidden, tiles.added(d_head, at, d_tile)

    start = (jnp.zeros(hidden_nD.shape, jnp.float32), jnp.zeros(head.shape, head.dtype))
    d_hidden, d_head = collectives.repeat(tiles.count, step, start)
    return projection.over_columns(d_hidden).astype(hidden_nD.dtype), projection.over_replicas(d_head)


class _Tiles:
    """The columns of a device's part, cut into tiles of one size."""

    def __init__(self, tokens: int, head: jax.Array, projection: Projection, chunk_bytes: int) -> None:
        self.projection, self.columns = projection, projection.columns(head)
        self.first = projection.first(head)
        self.size = projection.block(tokens, head, chunk_bytes)
        self.count = -(-self.columns // self.size)

    def start(self, number: jax.Array) -> jax.Array:
        """Return the first column of a tile, within this device's part."""
        return jnp.minimum(number * self.size, self.columns - self.size)

    def counts(self, number: jax.Array, at: jax.Array) -> jax.Array:
        """Return which columns of a tile count: those that no tile before it had and that are no padding."""
        column = at + jnp.arange(self.size)
        return ((column >= number * self.size) & (self.first + column < self.projection.vocabulary))[None]

    def hit(self, number: jax.Array, at: jax.Array, targets_n: jax.Array) -> jax.Array:
        """Return where a column that counts is the target of a token."""
        column = self.first + at + jnp.arange(self.size)
        return (targets_n[:, None] == column[None]) & self.counts(number, at)

    def added(self, whole: jax.Array, at: jax.Array, part: jax.Array) -> jax.Array:
        """Add a tile's columns into the whole, in place."""
        axis = 0 if self.projection.tied else 1
        before = jax.lax.dynamic_slice_in_dim(whole, at, self.size, axis)
        return jax.lax.dynamic_update_slice_in_dim(whole, before + part, at, axis)
