"""Loss per token on data the model was not trained on."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from alpacare_jax import sharding
from alpacare_jax.data.dataset import SequenceSource
from alpacare_jax.data.loader import batches_in_order
from alpacare_jax.loss import Batch, loss_sum, supervised_tokens
from alpacare_jax.model import Architecture, Params


def heldout_evaluator(
    architecture: Architecture,
    data: SequenceSource,
    mesh: jax.sharding.Mesh,
    *,
    rows: int = 4,
    pad_id: int = 0,
) -> Callable[[Params], Mapping[str, float | int]]:
    """Make a function that measures the loss of parameters on a fixed data set.

    Args:
        architecture: The model without values.
        data: The data set.
        mesh: The devices.
        rows: Rows at a time over all devices, rounded to what these divide.
        pad_id: Token id of the empty rows that fill the last batch.

    Returns:
        A function from parameters to ``val_loss`` (nats per supervised token, over the whole data set),
        ``val_perplexity`` and ``val_tokens``.
    """
    shards, places = sharding.shards_on(mesh, "batch"), sharding.batch_sharding(mesh)
    size = shards * max(1, rows // shards)

    @jax.jit
    def measure(params: Params, batch: Batch) -> jax.Array:
        return jnp.stack([loss_sum(architecture.model(params), batch), supervised_tokens(batch)])

    def evaluate(params: Params) -> Mapping[str, float | int]:
        total, tokens = 0.0, 0.0
        with sharding.use_mesh(mesh):
            for batch in batches_in_order(data, size, sharding=places, pad_id=pad_id):
                loss, count = jax.device_get(measure(params, batch))
                total, tokens = total + float(loss), tokens + float(count)
        loss = total / max(tokens, 1.0)
        return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0)), "val_tokens": int(tokens)}

    return evaluate
