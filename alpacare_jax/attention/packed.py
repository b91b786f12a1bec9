"""Attention on NVIDIA GPUs from Hopper on, by cuDNN's flash attention for packed rows.

cuDNN takes where each segment begins and how long it is, not segment ids, and a table of fixed size for them. It is
reached through a function that jax keeps private; before jax 0.11.1 that function reads the wrong keys where query
heads share key/value heads, so older versions are refused.

Source: ``jax._src.cudnn.fused_attention_stablehlo``; https://github.com/jax-ml/jax/pull/39521.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SEGMENTS = 64
"""Most segments of a row where nothing else is said; a run of padding counts as one."""


def attend_packed(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segment_ids_BT: Int[Array, "B T"],
    *,
    segments: int = SEGMENTS,
) -> Float[Array, "B T N H"]:
    """Attend within the segments of whole rows, each of which must be one run of tokens.

    Args:
        q_BTNH: Queries, rotated, not scaled; bfloat16 or float16.
        k_BTKH: Keys, rotated.
        v_BTKH: Values.
        segment_ids_BT: Segment of each token; equal ids must stand together.
        segments: Most segments of a row. The saved statistics of the softmax grow with it.

    Returns:
        The attended values, in the dtype of the queries. Of a row of more segments those that the table holds come
        out as NaN, so that it cannot be learnt from unnoticed.
    """
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    segments = min(segments, q_BTNH.shape[1])
    offsets, lengths, fits_B = segment_table(segment_ids_BT, segments)
    # NaN goes into the queries, where the compiler writes them anyway; what comes out would be written once more.
    q_BTNH = jnp.where(fits_B[:, None, None, None], q_BTNH, jnp.nan)
    return cudnn.dot_product_attention(
        q_BTNH,
        k_BTKH,
        v_BTKH,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=offsets,
        kv_offsets=offsets,
        scale=q_BTNH.shape[-1] ** -0.5,
        mask_type=cudnn.MaskType.PADDING_CAUSAL,
    )


def keeps_packed(primitive: Any, *_: Any, **__: Any) -> bool:
    """Say whether a primitive is this kernel's forward pass: a policy of what ``jax.checkpoint`` keeps.

    jax gives no name to what the kernel keeps for its backward pass.
    """
    return str(primitive) == "dot_product_attention_fwd_wrapper"


def segment_table(
    segment_ids_BT: Int[Array, "B T"], segments: int
) -> tuple[Int[Array, "B M1"], Int[Array, "B M"], jax.Array]:
    """Turn segment ids into where each run of equal ids begins and how long it is.

    Args:
        segment_ids_BT: Segment of each token.
        segments: M, the most runs of a row.

    Returns:
        Begins [B, M + 1] and lengths [B, M], int32, -1 behind the last run; and whether each row's runs fit [B].

    Example:
        ``[3 3 3 5 0 0]`` with M = 4 gives begins ``[0 3 4 -1 -1]`` and lengths ``[3 1 2 -1]``.
    """
    T = segment_ids_BT.shape[1]
    first_BT = begins_of_runs(segment_ids_BT)
    begins_BM = jax.vmap(lambda first: jnp.nonzero(first, size=segments + 1, fill_value=T)[0])(first_BT)
    begins_BM = begins_BM.astype(jnp.int32)
    fits_B = jnp.sum(first_BT, axis=1) <= segments
    lengths_BM = begins_BM[:, 1:] - begins_BM[:, :-1]
    lengths_BM = jnp.where(lengths_BM > 0, lengths_BM, -1)
    begins_BM = jnp.where(begins_BM < T, begins_BM, -1)
    # The table has one place more than there are runs; where a row has too many, that place is not to be read.
    return begins_BM.at[:, -1].set(-1), lengths_BM, fits_B


def begins_of_runs(segment_ids_BT: Int[Array, "B T"]) -> jax.Array:
    """Return True where a token's segment is not that of the token before it."""
    changed = segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1]
    return jnp.pad(changed, ((0, 0), (1, 0)), constant_values=True)
