"""Attention written out in XLA's own operations: the reference that every faster kernel is held against."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alpacare_jax import sharding

QUERY_BLOCK = 128
"""Queries handled at once where keys that come later are left out."""
MOST_BLOCKS = 8
"""Most such blocks in a row; more would save little and compile for longer."""


def segment_mask(segment_ids_BT: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Allow each token to see itself and earlier tokens of its own segment.

    Padding (segment 0) attends only to padding, so that no row of the mask is empty.

    Example:
        Segments ``[1 1 2 0]`` give rows ``1000 / 1100 / 0010 / 0001``.
    """
    T = segment_ids_BT.shape[1]
    causal_TT = jnp.tril(jnp.ones((T, T), dtype=bool))
    return (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]) & causal_TT[None]


def attend_masked(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    mask_BTS: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Attend with N query heads sharing K key/value heads; scores and softmax in fp32.

    Args:
        q_BTNH: Queries, rotated, not scaled.
        k_BSKH: Keys, rotated.
        v_BSKH: Values.
        mask_BTS: True where a query may see a key; no row may be empty.

    Returns:
        The attended values, in the dtype of the queries.

    Source: Ainslie et al. 2023 (grouped-query attention).
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) * H**-0.5
    scores_BKGTS = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    if not jax.sharding.get_abstract_mesh().manual_axes:  # within a shard_map every array is where it belongs
        scores_BKGTS = sharding.constrain(scores_BKGTS, "batch", "kv_heads", None, "length", None)
    scores_BKGTS = jnp.where(mask_BTS[:, None, None, :, :], scores_BKGTS, jnp.finfo(jnp.float32).min)
    weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH).reshape(B, T, N, H)


def attend_plainly(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segment_ids_BT: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attend within the segments of a row, block of queries by block, each to the keys that can stand before it.

    The same result as :func:`attend_masked` under :func:`segment_mask`, without most of the scores that the mask
    would discard.

    Args:
        q_BTNH: Queries, rotated, not scaled.
        k_BTKH: Keys, rotated.
        v_BTKH: Values.
        segment_ids_BT: Segment of each token, 0 for padding.
    """
    T = q_BTNH.shape[1]
    mask_BTT = segment_mask(segment_ids_BT)
    block = max(QUERY_BLOCK, -(-T // MOST_BLOCKS))
    if block >= T:
        return attend_masked(q_BTNH, k_BTKH, v_BTKH, mask_BTT)
    parts = []
    for start in range(0, T, block):
        end = min(start + block, T)
        queries = slice(start, end)
        parts.append(
            attend_masked(q_BTNH[:, queries], k_BTKH[:, :end], v_BTKH[:, :end], mask_BTT[:, queries, :end])
        )
    return jnp.concatenate(parts, axis=1)
