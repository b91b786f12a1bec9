"""The one way into attention in training: a kernel by its name, placed on the mesh in scope."""

import functools
from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from alpacare_jax import sharding
from alpacare_jax.attention.chunked import attend_chunked
from alpacare_jax.attention.context import attend_across
from alpacare_jax.attention.heads import layout_here
from alpacare_jax.attention.mask import SegmentMask
from alpacare_jax.attention.mosaic import attend_mosaic
from alpacare_jax.attention.names import AUTO, RESIDUALS, check_name
from alpacare_jax.attention.packed import SEGMENTS, attend_packed
from alpacare_jax.attention.plain import attend_plainly
from alpacare_jax.attention.selection import kernel_context, select_kernel
from alpacare_jax.attention.splash import attend_splash

Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segment_ids_BT: Int[Array, "B T"],
    *,
    kernel: str = AUTO,
    segments: int = SEGMENTS,
) -> Float[Array, "B T N H"]:
    """Attend within the segments of packed rows: each token to itself and the earlier tokens of its segment.

    Args:
        q_BTNH: Queries, rotated, not scaled.
        k_BTKH: Keys, rotated; N is a multiple of K.
        v_BTKH: Values.
        segment_ids_BT: Segment of each token; padding is segment 0 and sees padding. Tokens of a segment stand
            together.
        kernel: Name of the kernel; "auto" takes the best that can run on the mesh in scope.
        segments: Most segments of a row, for the kernel "cudnn", whose buffers grow with it; a row of more comes out
            as NaN there.

    Returns:
        The attended values, in the dtype of the queries.

    Raises:
        ConfigError: There is no such kernel.

    Example:
        >>> q_BTNH, k_BTKH, v_BTKH = (jnp.ones((1, 8, heads, 16)) for heads in (4, 2, 2))
        >>> attend(q_BTNH, k_BTKH, v_BTKH, jnp.ones((1, 8), jnp.int32), kernel="chunked").shape
        (1, 8, 4, 16)
    """
    check_name(kernel, where="kernel")
    if kernel == AUTO:
        mesh = jax.sharding.get_abstract_mesh()
        here = kernel_context(q_BTNH.dtype.name, q_BTNH.shape[3], q_BTNH.shape[1], mesh)
        kernel = select_kernel(here).name
    layout = layout_here(q_BTNH.shape[2], k_BTKH.shape[2])
    if layout.is_plain:
        return _run(kernel, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, segments)
    q, k, v = q_BTNH, _dealt(layout.spread_keys(k_BTKH)), _dealt(layout.spread_keys(v_BTKH))
    if layout.slots == layout.heads:
        return _run(kernel, q, k, v, segment_ids_BT, segments)
    q = _dealt(layout.spread_queries(q))
    return layout.collect(_by_length(_run(kernel, q, k, v, segment_ids_BT, segments)))


def _dealt(x: jax.Array) -> jax.Array:
    """Move from devices that have all heads of a part of the row to such that have some heads of all of it."""
    return sharding.constrain(_by_length(x), "batch", "length", "heads", None)


def _by_length(x: jax.Array) -> jax.Array:
    return sharding.constrain(x, "batch", "residual_length", None, None)


def _run(
    kernel: str,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array,
    segments: int,
) -> jax.Array:
    if sharding.shards_of("length") > 1:
        return attend_across(kernel, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    if kernel == "xla":
        return checkpoint_name(attend_plainly(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT), RESIDUALS)
    kernels: dict[str, Kernel] = {
        "chunked": lambda q, k, v, ids: attend_chunked(q, k, v, SegmentMask.whole(ids)),
        "splash": attend_splash,
        "cudnn": functools.partial(attend_packed, segments=segments),
        "tokamax": attend_mosaic,
    }
    queries, keys = ("batch", None, "heads", None), ("batch", None, "kv_heads", None)
    run = sharding.per_device(kernels[kernel], (queries, keys, keys, ("batch", None)), queries)
    return run(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
