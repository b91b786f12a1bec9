"""The loss of next-token prediction over packed batches, without ever holding the logits of a batch."""

from alpacare_jax.loss.batch import Batch, loss_sum, shift_targets, supervised_tokens
from alpacare_jax.loss.cross_entropy import cross_entropy_sum
from alpacare_jax.loss.tiling import CHUNK_BYTES, TILINGS

__all__ = [
    "CHUNK_BYTES",
    "TILINGS",
    "Batch",
    "cross_entropy_sum",
    "loss_sum",
    "shift_targets",
    "supervised_tokens",
]
