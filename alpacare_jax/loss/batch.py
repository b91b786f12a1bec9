"""What of a packed batch is predicted from what, and the loss of a model on it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alpacare_jax.loss.cross_entropy import cross_entropy_sum
from alpacare_jax.model import Llama

Batch = Mapping[str, jax.Array]


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
    head = (model.embed if model.head is None else model.head)[...]
    return cross_entropy_sum(
        hidden_BTD,
        head,
        targets_BT,
        weights_BT,
        tied=tied,
        vocabulary=model.config.vocab_size,
        tiling=model.compute.loss,
        chunk_bytes=None if model.compute.loss_chunk_mib is None else model.compute.loss_chunk_mib << 20,
    )
