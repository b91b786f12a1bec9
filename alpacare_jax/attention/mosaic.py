"""Attention on NVIDIA GPUs from Hopper on, by tokamax's flash attention in Pallas; needs the extra ``tokamax``.

The kernel reads for every query where its segment begins, so rows may hold any number of segments.

Source: ``tokamax._src.ops.attention.pallas_mosaic_gpu``.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alpacare_jax.attention.packed import begins_of_runs

IMPLEMENTATION = "mosaic_gpu"


def attend_mosaic(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segment_ids_BT: Int[Array, "B T"],
    *,
    implementation: str = IMPLEMENTATION,
) -> Float[Array, "B T N H"]:
    """Attend within the segments of whole rows, each of which must be one run of tokens.

    Args:
        q_BTNH: Queries, rotated, not scaled; bfloat16 or float16.
        k_BTKH: Keys, rotated.
        v_BTKH: Values.
        segment_ids_BT: Segment of each token; equal ids must stand together.
        implementation: Which of the package's kernels runs; "xla" runs everywhere, for tests.
    """
    from tokamax._src.ops.attention import api, base

    mask = base.Mask(k_start=begin_of_own_run(segment_ids_BT)[:, None, :], is_causal=True)
    return api.IMPLEMENTATIONS[implementation](
        q_BTNH, k_BTKH, v_BTKH, mask=mask, logits_scale=q_BTNH.shape[-1] ** -0.5
    )


def begin_of_own_run(segment_ids_BT: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Return for each token the place at which its run of equal segment ids begins.

    Example:
        ``[3 3 3 5 0 0]`` gives ``[0 0 0 3 4 4]``.
    """
    places_T = jnp.arange(segment_ids_BT.shape[1], dtype=jnp.int32)
    begins_BT = jnp.where(begins_of_runs(segment_ids_BT), places_T[None], 0)
    return jax.lax.cummax(begins_BT, axis=1)
