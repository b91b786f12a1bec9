"""How the loss of one call is tiled, where the configuration does not say."""

import jax

from alpacare_jax import sharding
from alpacare_jax.loss.projection import Projection

TILINGS = ("auto", "tokens", "vocabulary")
"""How the work may be cut; "auto" takes "tokens" where what that needs beside the logits is small."""

CHUNK_BYTES = 96 << 20
"""About how many bytes of fp32 logits exist at once on a device, where nothing else is said."""

PIECES = {"tokens": 16, "vocabulary": 32}
"""On GPUs, in at most about how many pieces the logits come: with each a sum is read from memory and written back, of
the projection's gradients or the hidden states'. Everything that "vocabulary" needs stays below a tenth of the logits,
as XLA's compiler for GPUs reports it."""

SMALL_BYTES = 128 << 20
"""Bytes of a device's part of the projection in fp32 up to which "auto" takes "tokens" anywhere."""

WIDTHS = 4
"""On GPUs "auto" takes "tokens" from this many times the width on: by then the projection and its gradient, which that
tiling holds whole on every device, are no more than 3/8 of what the logits would be."""


def tokens_of(hidden_BTD: jax.Array, projection: Projection) -> int:
    """Return how many tokens one device works on."""
    return hidden_BTD.shape[0] * hidden_BTD.shape[1] // sharding.size_of(projection.tokens_over)


def columns_of(head: jax.Array, projection: Projection) -> int:
    """Return how many columns of the projection one device has."""
    return head.shape[0 if projection.tied else 1] // sharding.size_of(projection.columns_over)


def choose_chunk(hidden_BTD: jax.Array, head: jax.Array, projection: Projection, tiling: str) -> int:
    """Return about how many bytes of logits should exist at once on a device.

    Example:
        8,192 tokens of a vocabulary of 128,256 have logits of 3.9 GiB: on a GPU 125 MiB at once, elsewhere 96.
    """
    if sharding.platform_here() != "gpu":
        return CHUNK_BYTES
    logits = 4 * tokens_of(hidden_BTD, projection) * columns_of(head, projection)
    return max(CHUNK_BYTES, logits // PIECES[tiling])


def choose_tiling(hidden_BTD: jax.Array, head: jax.Array, projection: Projection) -> str:
    """Return "tokens" or "vocabulary", whichever suits the shapes and the platform."""
    split = sharding.shards_of("vocab") if projection.columns_over else 1
    if 4 * head.size // split <= SMALL_BYTES:
        return "tokens"
    many = tokens_of(hidden_BTD, projection) >= WIDTHS * hidden_BTD.shape[-1]
    return "tokens" if many and sharding.platform_here() == "gpu" else "vocabulary"
