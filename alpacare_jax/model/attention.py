"""Grouped-query attention to a cache of keys and values, as decoding needs it; training's is a room of its own."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def slot_mask(positions_BT: Int[Array, "B T"], slots: int) -> Bool[Array, "B T S"]:
    """Allow each query to see the cache slots up to its own position; slot s holds position s of its row."""
    return jnp.arange(slots)[None, None, :] <= positions_BT[:, :, None]


def attend_cached(
    q_BTNH: Float[Array, "B T N H"],
    k_BKSH: Float[Array, "B K S H"],
    v_BKSH: Float[Array, "B K S H"],
    mask_BTS: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Attend to cached keys and values, which lie head by head so that decoding reads them in one sweep.

    The same sums as :func:`alpacare_jax.attention.attend_masked`; with the heads outermost no key is moved before it
    is multiplied.

    Args:
        q_BTNH: Queries, rotated, not scaled.
        k_BKSH: Cached keys, rotated.
        v_BKSH: Cached values.
        mask_BTS: True where a query may see a slot; no row may be empty.

    Returns:
        The attended values, in the dtype of the queries.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BKSH.shape[1]
    G = N // K
    q_BKGTH = jnp.transpose(q_BTNH.reshape(B, T, K, G, H), (0, 2, 3, 1, 4)) * H**-0.5
    scores_BKRS = jnp.einsum(
        "BKRH,BKSH->BKRS", q_BKGTH.reshape(B, K, G * T, H), k_BKSH, preferred_element_type=jnp.float32
    )
    scores_BKGTS = scores_BKRS.reshape(B, K, G, T, -1)
    scores_BKGTS = jnp.where(mask_BTS[:, None, None, :, :], scores_BKGTS, jnp.finfo(jnp.float32).min)
    weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BKSH.dtype)
    weights_BKRS = weights_BKGTS.reshape(B, K, G * T, -1)
    attended_BKGTH = jnp.einsum("BKRS,BKSH->BKRH", weights_BKRS, v_BKSH).reshape(B, K, G, T, H)
    return jnp.transpose(attended_BKGTH, (0, 3, 1, 2, 4)).reshape(B, T, N, H)
