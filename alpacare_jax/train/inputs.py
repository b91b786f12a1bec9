"""Second moments of a model's activations on some rows, to which adapters are initialised."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.adapters.residual import ObservedWeight
from alpacare_jax.data.dataset import SequenceSource
from alpacare_jax.data.loader import BatchStream
from alpacare_jax.data.packing import COLUMNS
from alpacare_jax.errors import DataError, ShardingError
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


def first_batches(data: SequenceSource, seed: int, mesh: Mesh, *, rows: int, at_once: int) -> Iterator[Batch]:
    """Yield the first training rows of a run, never more at once than a step takes.

    Args:
        data: The rows.
        seed: Of their order.
        mesh: The devices.
        rows: How many, rounded up to what the devices divide.
        at_once: Rows of a microbatch over all devices.
    """
    shards = sharding.shards_on(mesh, "batch")
    wanted, most = -(-rows // shards), at_once // shards
    each = max(size for size in range(1, most + 1) if wanted % size == 0)
    stream = BatchStream(data, shards * each, seed, sharding=sharding.batch_sharding(mesh))
    try:
        for _ in range(wanted // each):
            yield next(stream)[0]
    finally:
        stream.close()


def place_batch(batch: Mapping[str, Any], mesh: Mesh, microbatches: int) -> Batch:
    """Put a caller's batch onto the mesh.

    Args:
        batch: The arrays of :data:`alpacare_jax.data.packing.COLUMNS`, [B, T] each.
        mesh: The devices.
        microbatches: Into how many parts a step splits it.

    Raises:
        DataError: An array lacks, or they differ in shape.
        ShardingError: Devices and microbatches do not divide it.
    """
    shapes = {name: np.shape(batch[name]) for name in COLUMNS if name in batch}
    if len(shapes) < len(COLUMNS) or len(set(shapes.values())) > 1 or len(shapes["tokens"]) != 2:
        raise DataError(
            "the batch does not hold arrays of one shape",
            where="batch",
            found=", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none",
            expected=f"{', '.join(COLUMNS)}, each [B, T]",
        )
    rows, length = shapes["tokens"]
    unit = microbatches * sharding.shards_on(mesh, "batch")
    if rows % unit:
        raise ShardingError(
            "the batch does not divide over devices and microbatches",
            where="batch",
            found=f"{rows} rows",
            expected=f"a multiple of {unit}",
        )
    sharding.check_divides(mesh, {"length": length})
    places = sharding.batch_sharding(mesh)
    return {name: jax.device_put(jnp.asarray(batch[name], jnp.int32), places) for name in COLUMNS}
