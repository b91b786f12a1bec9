"""What adapters' start is fitted to: the inputs of a model's products on some rows, as second moments."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.adapters.residual import ObservedWeight
from alpacare_jax.data.dataset import RowSource
from alpacare_jax.data.loader import BatchStream
from alpacare_jax.loss import Batch, loss_sum
from alpacare_jax.model import Architecture, Params
from alpacare_jax.model.params import flatten, unflatten


def second_moments(
    architecture: Architecture, params: Params, batches: Iterable[Batch], places: dict[str, Any]
) -> dict[str, jax.Array]:
    """Sum x x^T over the inputs x of weights, on all tokens of some batches.

    While they are summed, devices hold their share twice (the sums and those of one batch), and about two layers'
    moments whole.

    Args:
        architecture: The model without values.
        params: Its parameters, not quantised.
        batches: Rows, on the devices.
        places: Shapes [L, i, i] of the results and where they lie, by names of weights.

    Returns:
        fp32 arrays by the same names.
    """

    def total(moments: dict[str, jax.Array], params: Params, batch: Batch) -> jax.Array:
        leaves = flatten(params)
        leaves |= {name: ObservedWeight(leaves[name], moment) for name, moment in moments.items()}  # type: ignore[misc]
        return loss_sum(architecture.model(unflatten(leaves)), batch)

    where = {name: leaf.sharding for name, leaf in places.items()}

    @functools.partial(jax.jit, out_shardings=where, donate_argnums=0)
    def add(found: dict[str, jax.Array], params: Params, batch: Batch) -> dict[str, jax.Array]:
        zeros = {name: jnp.zeros_like(moment) for name, moment in found.items()}
        return jax.tree.map(jnp.add, found, jax.grad(total)(zeros, params, batch))

    found = jax.jit(
        lambda: {name: jnp.zeros(leaf.shape, jnp.float32) for name, leaf in places.items()},
        out_shardings=where,
    )()
    for batch in batches:
        found = add(found, params, batch)
    return found


def first_batches(data: RowSource, seed: int, mesh: Mesh, *, rows: int, at_once: int) -> Iterator[Batch]:
    """Yield the first training rows of a run, never more at once than a step takes.

    Args:
        data: The rows.
        seed: Of their order.
        mesh: The devices.
        rows: How many, rounded up to what the devices divide.
        at_once: Rows of a microbatch over all devices.
    """
    shards = sharding.batch_shards(mesh)
    wanted, most = -(-rows // shards), at_once // shards
    each = max(size for size in range(1, most + 1) if wanted % size == 0)
    stream = BatchStream(data, shards * each, seed, sharding=sharding.batch_sharding(mesh))
    try:
        for _ in range(wanted // each):
            yield next(stream)[0]
    finally:
        stream.close()
