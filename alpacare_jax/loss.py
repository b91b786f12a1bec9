"""Next-token cross-entropy over supervised tokens, without ever holding the logits of a whole batch."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alpacare_jax import sharding
from alpacare_jax.model import Llama

Batch = Mapping[str, jax.Array]

CHUNK_TOKENS = 2048
"""About how many tokens' logits exist at once on a device."""


def shift_targets(
    tokens_BT: Int[Array, "B T"], loss_mask_BT: Int[Array, "B T"]
) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
    """Align each position with the token it predicts.

    Args:
        tokens_BT: Token ids.
        loss_mask_BT: 1 where a token is itself a supervised target; never at the first token of a segment, so no
            segment is predicted from another.

    Returns:
        The target of each position and its weight; the last position of a row has weight 0.

    Example:
        Tokens ``[5 6 7 8]`` with mask ``[0 0 1 1]`` give targets ``[6 7 8 0]`` with weights ``[0 1 1 0]``.
    """
    targets_BT = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, 1)))
    weights_BT = jnp.pad(loss_mask_BT[:, 1:].astype(jnp.float32), ((0, 0), (0, 1)))
    return targets_BT, weights_BT


def supervised_tokens(batch: Batch) -> jax.Array:
    """Count a batch's supervised targets, as fp32: the number that divides the summed loss."""
    return shift_targets(batch["tokens"], batch["loss_mask"])[1].sum()


def loss_sum(model: Llama, batch: Batch) -> jax.Array:
    """Sum the cross-entropy over a batch's supervised tokens.

    The sum, not the mean: batches, microbatches and devices are added up first and divided once, by the number
    of supervised tokens of them all, so that accumulation equals the large batch exactly.

    Args:
        model: The model, with its parameters.
        batch: ``tokens, segment_ids, positions, loss_mask``, each [B, T] int32.

    Returns:
        The summed loss in nats, a scalar in fp32.
    """
    hidden_BTD = model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
    targets_BT, weights_BT = shift_targets(batch["tokens"], batch["loss_mask"])
    tied = model.head is None
    table = (model.embed if model.head is None else model.head)[...]
    # Gathered over fsdp once, not once a chunk.
    table = sharding.constrain(
        table.astype(hidden_BTD.dtype), *(("vocab", "width") if tied else ("width", "vocab"))
    )
    return chunked_cross_entropy(hidden_BTD, table.T if tied else table, targets_BT, weights_BT)


def chunked_cross_entropy(
    hidden_BTD: Float[Array, "B T D"],
    head_DV: Float[Array, "D V"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunk_tokens: int = CHUNK_TOKENS,
) -> jax.Array:
    """Sum weighted cross-entropy, computing logits chunk by chunk along the row.

    The gradient is formed in the same pass as the value, so no logits are kept or computed twice.

    Args:
        hidden_BTD: Final hidden states, in the compute dtype.
        head_DV: The output projection, in the compute dtype.
        targets_BT: Token id each position predicts.
        weights_BT: Weight of each position, 0 where unsupervised.
        chunk_tokens: About how many positions of the batch are projected at once.

    Returns:
        The weighted sum, a scalar in fp32.
    """
    B, T, _ = hidden_BTD.shape
    chunks = max(1, min(T, B * T // chunk_tokens))
    while T % chunks:
        chunks -= 1
    return _summed(hidden_BTD, head_DV, targets_BT, weights_BT, chunks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _summed(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, chunks: int
) -> jax.Array:
    def step(total: jax.Array, chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        hidden, targets, weights = chunk
        return total + _chunk_loss(hidden, head, targets, weights)[0], None

    return jax.lax.scan(step, jnp.float32(0), _split(chunks, hidden, targets, weights))[0]


def _chunk_loss(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return a chunk's summed loss, its logits and the logarithm of their normaliser."""
    logits = jnp.einsum("BTD,DV->BTV", hidden, head, preferred_element_type=jnp.float32)
    logits = sharding.constrain(logits, "batch", "length", "vocab")
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jnp.sum((normaliser - picked) * weights), logits, normaliser


def _forward(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, chunks: int
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    def step(carry: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, ...]) -> tuple:
        total, d_head = carry
        hidden, targets, weights = chunk
        loss, logits, normaliser = _chunk_loss(hidden, head, targets, weights)
        probabilities = jnp.exp(logits - normaliser[..., None])
        hit = jax.nn.one_hot(targets, logits.shape[-1], dtype=jnp.float32)
        d_logits = ((probabilities - hit) * weights[..., None]).astype(hidden.dtype)
        d_hidden = jnp.einsum("BTV,DV->BTD", d_logits, head)
        d_head = d_head + jnp.einsum("BTD,BTV->DV", hidden, d_logits, preferred_element_type=jnp.float32)
        return (total + loss, d_head), d_hidden

    start = (jnp.float32(0), jnp.zeros(head.shape, jnp.float32))
    d_hidden: jax.Array
    (total, d_head), d_hidden = jax.lax.scan(step, start, _split(chunks, hidden, targets, weights))
    d_hidden = jnp.moveaxis(d_hidden, 0, 2).reshape(hidden.shape)
    return total, (d_hidden, d_head.astype(head.dtype))


def _backward(chunks: int, saved: tuple[jax.Array, ...], d_total: jax.Array) -> tuple[jax.Array | None, ...]:
    d_hidden, d_head = saved
    return (d_hidden * d_total).astype(d_hidden.dtype), (d_head * d_total).astype(d_head.dtype), None, None


_summed.defvjp(_forward, _backward)


def _split(chunks: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Deal the positions of each row out to chunks in turn, which leaves a row sharded over devices where it is."""
    return tuple(
        jnp.moveaxis(array.reshape(array.shape[0], -1, chunks, *array.shape[2:]), 2, 0) for array in arrays
    )
