"""Attention on TPUs by jax's splash kernel: flash attention in Pallas that leaves out blocks behind the causal line.

The kernel takes one row, heads first, scaled queries, and lengths that its blocks divide. Key/value heads are shared
by index, never repeated.

Source: ``jax.experimental.pallas.ops.tpu.splash_attention``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alpacare_jax.attention.names import RESIDUALS

LANES = 128
"""Lengths and blocks are multiples of this."""
MOST = 512
"""Most queries, and most keys, in a block."""
NOBODY = jnp.iinfo(jnp.int32).min
"""Segment of the tokens that pad a row; they attend to one another, and no other token attends to them."""


def attend_splash(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segment_ids_BT: Int[Array, "B T"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Attend within the segments of whole rows.

    Args:
        q_BTNH: Queries, rotated, not scaled.
        k_BTKH: Keys, rotated.
        v_BTKH: Values.
        segment_ids_BT: Segment of each token.
        interpret: Run the kernel's text on whatever device there is, slowly, to test it.

    Returns:
        The attended values, in the dtype of the queries.
    """
    T, N = q_BTNH.shape[1:3]
    short = -T % LANES
    if short:
        q_BTNH, k_BTKH, v_BTKH = (
            jnp.pad(x, ((0, 0), (0, short), (0, 0), (0, 0))) for x in (q_BTNH, k_BTKH, v_BTKH)
        )
        segment_ids_BT = jnp.pad(segment_ids_BT, ((0, 0), (0, short)), constant_values=NOBODY)
    kernel = make_kernel(np.arange(T + short), N, interpret=interpret)
    return run_kernel(kernel, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, segment_ids_BT)[:, :T]


def make_kernel(query_places_T: np.ndarray, heads: int, *, shards: int = 1, interpret: bool = False) -> Any:
    """Prepare the kernel for queries at given places of a row, over all of its keys.

    Args:
        query_places_T: Place in the row of each query, over all shards.
        heads: Query heads on a device.
        shards: Over how many devices the queries of a row are split.
        interpret: See :func:`attend_splash`.

    Returns:
        A pytree: which blocks count, and a function of one row.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    length = len(query_places_T)
    mask = masks.CausalMask((length, length))
    mask.q_sequence = np.asarray(query_places_T, np.int32)
    # Balanced shards hold two pieces of the row; no block may straddle them.
    steps = np.diff(query_places_T[: length // shards])
    piece = int(np.argmax(steps != 1)) + 1 if (steps != 1).any() else length // shards
    queries, keys = block_of(piece), block_of(length)
    blocks = splash.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_kv_compute=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        block_kv_dkv_compute=keys,
        block_q_dq=queries,
        block_kv_dq=keys,
    )
    return splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=shards,
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )


def block_of(length: int) -> int:
    """Return the largest block that divides a length.

    Example:
        >>> block_of(4096), block_of(1152), block_of(640)
        (512, 384, 128)
    """
    return max(block for block in range(LANES, MOST + 1, LANES) if length % block == 0)


def run_kernel(
    kernel: Any,
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    query_segments_BT: Int[Array, "B T"],
    key_segments_BS: Int[Array, "B S"],
) -> Float[Array, "B T N H"]:
    """Run a prepared kernel on every row; lengths must be multiples of :data:`LANES`."""
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SegmentIds

    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BTNH * q_BTNH.shape[-1] ** -0.5, k_BSKH, v_BSKH))
    ids = SegmentIds(query_segments_BT, key_segments_BS)
    return jnp.swapaxes(jax.vmap(kernel)(q, k, v, ids), 1, 2)
