"""The one way into attention in training: a kernel by its name, placed on the mesh in scope."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from alpacare_jax import sharding
from alpacare_jax.attention.chunked import attend_chunked
from alpacare_jax.attention.names import AUTO, check_name
from alpacare_jax.attention.plain import attend_plainly
from alpacare_jax.attention.visible import Visible

Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segment_ids_BT: Int[Array, "B T"],
    *,
    kernel: str = AUTO,
) -> Float[Array, "B T N H"]:
    """Attend within the segments of packed rows: each token to itself and the earlier tokens of its segment.

    Args:
        q_BTNH: Queries, rotated, not scaled.
        k_BTKH: Keys, rotated; N is a multiple of K.
        v_BTKH: Values.
        segment_ids_BT: Segment of each token; padding is segment 0 and sees padding.
        kernel: Name of the kernel, or "auto".

    Returns:
        The attended values, in the dtype of the queries.

    Raises:
        ConfigError: There is no such kernel.

    Example:
        >>> attend(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, kernel="chunked").shape == q_BTNH.shape
        True
    """
    check_name(kernel, where="kernel")
    if kernel in (AUTO, "xla"):
        return attend_plainly(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    return _on_mesh(_chunked)(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)


def _chunked(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
    return attend_chunked(q, k, v, Visible.whole(segment_ids))


def _on_mesh(kernel: Kernel) -> Kernel:
    """Let every device of the mesh in scope run a kernel on its own rows and heads."""
    if jax.sharding.get_abstract_mesh().empty:
        return kernel
    queries = sharding.spec(("batch", None, "heads", None))
    keys = sharding.spec(("batch", None, "kv_heads", None))
    return jax.shard_map(
        kernel,
        in_specs=(queries, keys, keys, sharding.spec(("batch", None))),
        out_specs=queries,
        check_vma=False,
    )
