"""Random numbers of a step: one key a row of the batch, the same for any mesh and any number of microbatches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alpacare_jax import sharding
from alpacare_jax.model.rope import segment_lengths

STREAM = 0x5EED


def row_keys(seed: int, step: jax.Array, rows: Int[Array, " B"]) -> jax.Array:
    """Return a key for each row.

    Args:
        seed: Of the run.
        step: Steps done before this one.
        rows: The rows' numbers within the whole batch.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAM), step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def neftune(
    alpha: float, keys: jax.Array, positions_BT: Int[Array, "B T"], segment_ids_BT: Int[Array, "B T"]
) -> Callable[[Float[Array, "B T D"]], Float[Array, "B T D"]]:
    """Make the function that adds NEFTune's noise to embeddings.

    Noise is uniform within alpha / sqrt(length x width), the length being that of the token's own segment: what an
    example gets does not depend on what it is packed with.

    Args:
        alpha: Strength; 5 to 15 in the paper.
        keys: A key a row, [B].
        positions_BT: Position of each token within its segment.
        segment_ids_BT: Segment of each token.

    Source: Jain et al. 2023, algorithm 1.
    """

    def perturb(x_BTD: jax.Array) -> jax.Array:
        _, T, D = x_BTD.shape
        lengths_BT = segment_lengths(positions_BT, segment_ids_BT)
        bound_BT1 = (alpha / jnp.sqrt(lengths_BT.astype(jnp.float32) * D))[..., None]
        noise_BTD = jax.vmap(lambda key: jax.random.uniform(key, (T, D), jnp.float32, -1, 1))(keys)
        noise_BTD = sharding.constrain(noise_BTD * bound_BT1, "batch", "length", "width")
        return x_BTD + noise_BTD.astype(x_BTD.dtype)

    return perturb
