"""Attention in memory that grows with the row and not with its square, in XLA's own operations.

Queries are taken block by block and meet the blocks of keys one after another; the softmax is carried along as its
running maximum and sum, so that only one block of scores exists at a time. The backward pass is written out: it forms
each block of weights again from the saved logarithm of the normaliser. Blocks in which no query can see a key, because
all keys come later or belong to other segments, are left out before and behind the ones that count.

Source: Dao et al. 2022 (FlashAttention), Rabe and Staats 2021.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from alpacare_jax.attention.mask import SegmentMask
from alpacare_jax.attention.names import RESIDUALS

BLOCK = 512
"""Most queries, and most keys, in a block."""
LEAST_BLOCK = 128
"""Blocks are not made smaller than this to save memory."""
SCORE_BYTES = 256 << 20
"""About how many bytes a block of scores may take on a device."""
MASKED = -1e30
"""Score of a key that is not to be seen: finite, so that the difference of two such is no NaN."""
NOBODY = jnp.iinfo(jnp.int32).min
"""Segment of the tokens that pad the last block; they attend to one another, and no other token attends to them."""


def attend_chunked(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    mask: SegmentMask,
    block: int | None = None,
) -> Float[Array, "B T N H"]:
    """Attend block by block; never holds scores of more than one block of queries and one of keys.

    Scores, softmax and sums are fp32 whatever the dtype. Keys and values are not repeated for the query heads that
    share them.

    Args:
        q_BTNH: Queries, rotated, not scaled.
        k_BSKH: Keys, rotated.
        v_BSKH: Values.
        mask: Which keys each query sees. A query that sees none gets zeros.
        block: Tokens in a block; chosen from the shapes when None.

    Returns:
        The attended values, in the dtype of the queries.
    """
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    block = choose_block(B, N, max(T, S)) if block is None else block
    queries, keys = min(block, T), min(block, S)
    padded = SegmentMask(
        _padded(mask.query_segments_BT, queries, NOBODY),
        _padded(mask.key_segments_BS, keys, NOBODY),
        _padded(mask.query_places_T[None], queries, T + S)[0],
        _padded(mask.key_places_S[None], keys, T + S)[0],
    )
    q_BKGTH = jnp.moveaxis(_padded(q_BTNH, queries, 0).reshape(B, -1, K, N // K, H), 1, 3)
    k_BKSH, v_BKSH = (jnp.moveaxis(_padded(x, keys, 0), 1, 2) for x in (k_BSKH, v_BSKH))
    attended_BKGTH = _attend(q_BKGTH, k_BKSH, v_BKSH, padded, queries, keys)
    return jnp.moveaxis(attended_BKGTH, 3, 1)[:, :T].reshape(B, T, N, H)


def choose_block(batch: int, heads: int, length: int) -> int:
    """Return how many tokens make a block, so that its scores stay within :data:`SCORE_BYTES` where they can.

    Example:
        >>> choose_block(batch=1, heads=32, length=4096), choose_block(batch=32, heads=32, length=4096)
        (512, 256)
    """
    affordable = math.isqrt(SCORE_BYTES // (4 * batch * heads))
    block = BLOCK
    while block > LEAST_BLOCK and block > affordable:
        block //= 2
    return min(block, length)


def _padded(x: jax.Array, block: int, value: int) -> jax.Array:
    """Fill axis 1 up to a multiple of ``block``."""
    short = -x.shape[1] % block
    return jnp.pad(x, ((0, 0), (0, short)) + ((0, 0),) * (x.ndim - 2), constant_values=value) if short else x


def _needed(mask: SegmentMask, queries: int, keys: int) -> tuple[jax.Array, jax.Array]:
    """Return, for each block of queries, the first block of keys that it needs and the one behind the last."""

    def ends(x: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
        x = x.reshape(x.shape[0], -1, block)
        return x.min(axis=-1), x.max(axis=-1)

    (q_least, q_most), (k_least, k_most) = (
        ends(mask.query_segments_BT, queries),
        ends(mask.key_segments_BS, keys),
    )
    share = (q_least[:, :, None] <= k_most[:, None, :]) & (k_least[:, None, :] <= q_most[:, :, None])
    latest, earliest = (
        ends(mask.query_places_T[None], queries)[1][0],
        ends(mask.key_places_S[None], keys)[0][0],
    )
    needed = share.any(axis=0) & (latest[:, None] >= earliest[None, :])
    blocks = needed.shape[1]
    first = jnp.argmax(needed, axis=1)
    behind = blocks - jnp.argmax(needed[:, ::-1], axis=1)
    any_needed = needed.any(axis=1)
    return jnp.where(any_needed, first, 0), jnp.where(any_needed, behind, 0)


class _Blocks:
    """Cuts blocks out of the arrays of one call."""

    def __init__(self, mask: SegmentMask, queries: int, keys: int) -> None:
        self.mask, self.queries, self.keys = mask, queries, keys
        self.first, self.behind = _needed(mask, queries, keys)
        self.count = self.first.shape[0]

    def of_queries(self, x: jax.Array, i: jax.Array, axis: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, i * self.queries, self.queries, axis)

    def of_keys(self, x: jax.Array, j: jax.Array, axis: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, j * self.keys, self.keys, axis)

    def block_mask(self, i: jax.Array, j: jax.Array) -> Bool[Array, "B 1 1 T S"]:
        part = SegmentMask(
            self.of_queries(self.mask.query_segments_BT, i, 1),
            self.of_keys(self.mask.key_segments_BS, j, 1),
            self.of_queries(self.mask.query_places_T, i, 0),
            self.of_keys(self.mask.key_places_S, j, 0),
        )
        return part.dense()[:, None, None]


def _product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(
    q_BKGTH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, mask: SegmentMask, queries: int, keys: int
) -> jax.Array:
    return _forward(q_BKGTH, k_BKSH, v_BKSH, mask, queries, keys)[0]


def _forward(
    q_BKGTH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, mask: SegmentMask, queries: int, keys: int
) -> tuple[jax.Array, tuple]:
    B, K, G, _, H = q_BKGTH.shape
    blocks = _Blocks(mask, queries, keys)

    def of_block(_: None, i: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        q_BKGTH_i = blocks.of_queries(q_BKGTH, i, 3) * H**-0.5

        def meet(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            most, total, sums = carry
            seen = blocks.block_mask(i, j)
            scores = _product("BKGTH,BKSH->BKGTS", q_BKGTH_i, blocks.of_keys(k_BKSH, j, 2))
            scores = jnp.where(seen, scores, MASKED)
            higher = jnp.maximum(most, scores.max(axis=-1))
            weights = jnp.where(seen, jnp.exp(scores - higher[..., None]), 0)
            shrink = jnp.exp(most - higher)
            values = blocks.of_keys(v_BKSH, j, 2)
            added = _product("BKGTS,BKSH->BKGTH", weights.astype(values.dtype), values)
            return higher, total * shrink + weights.sum(axis=-1), sums * shrink[..., None] + added

        shape = (B, K, G, queries)
        start = (
            jnp.full(shape, MASKED, jnp.float32),
            jnp.zeros(shape, jnp.float32),
            jnp.zeros((*shape, H), jnp.float32),
        )
        most, total, sums = jax.lax.fori_loop(blocks.first[i], blocks.behind[i], meet, start)
        total = jnp.where(total > 0, total, 1)
        return None, ((sums / total[..., None]).astype(q_BKGTH.dtype), most + jnp.log(total))

    _, (attended, normaliser) = jax.lax.scan(of_block, None, jnp.arange(blocks.count))
    attended_BKGTH = _joined(attended)
    normaliser_BKGT = _joined(normaliser)
    attended_BKGTH = checkpoint_name(attended_BKGTH, RESIDUALS)
    normaliser_BKGT = checkpoint_name(normaliser_BKGT, RESIDUALS)
    return attended_BKGTH, (q_BKGTH, k_BKSH, v_BKSH, mask, attended_BKGTH, normaliser_BKGT)


def _joined(parts: jax.Array) -> jax.Array:
    """Put blocks of queries, which lie along axis 0, one behind another along axis 3."""
    parts = jnp.moveaxis(parts, 0, 3)
    return parts.reshape(*parts.shape[:3], -1, *parts.shape[5:])


def _backward(queries: int, keys: int, saved: tuple, d_attended_BKGTH: jax.Array) -> tuple:
    q_BKGTH, k_BKSH, v_BKSH, mask, attended_BKGTH, normaliser_BKGT = saved
    scale = q_BKGTH.shape[-1] ** -0.5
    blocks = _Blocks(mask, queries, keys)
    inner_BKGT = jnp.sum(attended_BKGTH.astype(jnp.float32) * d_attended_BKGTH.astype(jnp.float32), axis=-1)

    def of_block(d_keys_values: tuple, i: jax.Array) -> tuple[tuple, jax.Array]:
        q, d_out = blocks.of_queries(q_BKGTH, i, 3), blocks.of_queries(d_attended_BKGTH, i, 3)
        normaliser, inner = blocks.of_queries(normaliser_BKGT, i, 3), blocks.of_queries(inner_BKGT, i, 3)

        def meet(j: jax.Array, carry: tuple) -> tuple:
            d_q, d_k, d_v = carry
            k, v = blocks.of_keys(k_BKSH, j, 2), blocks.of_keys(v_BKSH, j, 2)
            scores = _product("BKGTH,BKSH->BKGTS", q * scale, k)
            weights = jnp.where(blocks.block_mask(i, j), jnp.exp(scores - normaliser[..., None]), 0)
            d_weights = _product("BKGTH,BKSH->BKGTS", d_out, v)
            d_scores = (weights * (d_weights - inner[..., None]) * scale).astype(q.dtype)
            d_q = d_q + _product("BKGTS,BKSH->BKGTH", d_scores, k)
            d_k = _added(d_k, j * keys, _product("BKGTS,BKGTH->BKSH", d_scores, q))
            d_v = _added(d_v, j * keys, _product("BKGTS,BKGTH->BKSH", weights.astype(q.dtype), d_out))
            return d_q, d_k, d_v

        start = (jnp.zeros(q.shape, jnp.float32), *d_keys_values)
        d_q, d_k, d_v = jax.lax.fori_loop(blocks.first[i], blocks.behind[i], meet, start)
        return (d_k, d_v), d_q.astype(q.dtype)

    zeros = (jnp.zeros(k_BKSH.shape, jnp.float32), jnp.zeros(v_BKSH.shape, jnp.float32))
    (d_k, d_v), d_q = jax.lax.scan(of_block, zeros, jnp.arange(blocks.count))
    return _joined(d_q), d_k.astype(k_BKSH.dtype), d_v.astype(v_BKSH.dtype), None


def _added(whole: jax.Array, at: jax.Array, part: jax.Array) -> jax.Array:
    """Add a block into an array along its axis 2, in place where the compiler can."""
    before = jax.lax.dynamic_slice_in_dim(whole, at, part.shape[2], 2)
    return jax.lax.dynamic_update_slice_in_dim(whole, before + part, at, 2)


_attend.defvjp(_forward, _backward)
