"""Where the optimiser's state lies on a mesh: beside the parameters it belongs to."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey

from alpacare_jax import sharding

T = TypeVar("T")


def place_state(state: Any, params: Any, mesh: Mesh) -> Any:
    """Return the optimiser's state as shape structs with shardings: moments lie where their parameters lie.

    A leaf belongs to the parameter whose path its own path ends with. Scales of blocks along the last axis follow
    the parameter where they divide; sums over one axis keep the sharding of the others; all else is replicated.

    Args:
        state: The state's shapes.
        params: Abstract parameters that carry their shardings.
        mesh: The mesh on which everything else is replicated.
    """
    owners = {keys_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def place(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        owner = owner_of(path, owners)
        if owner is None or not leaf.shape:
            where = sharding.replicated(mesh)
        else:
            where = _beside(leaf.shape, owner.shape, owner.sharding)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree_util.tree_map_with_path(place, state)


def keys_of(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the keys of dicts on the way to a leaf."""
    return tuple(key.key for key in path if isinstance(key, DictKey))


def owner_of(path: tuple[Any, ...], owners: Mapping[tuple[Any, ...], T]) -> T | None:
    """Return the entry of the parameter whose path a leaf's path ends with; None without such a parameter."""
    keys = keys_of(path)
    return next((owners[keys[at:]] for at in range(len(keys)) if keys[at:] in owners), None)


def _beside(shape: tuple[int, ...], owner: tuple[int, ...], where: NamedSharding) -> NamedSharding:
    spec = tuple(where.spec) + (None,) * (len(owner) - len(where.spec))
    if shape == owner:
        return where
    if shape[:-1] == owner[:-1]:
        one = NamedSharding(where.mesh, PartitionSpec(spec[-1]))
        divides = shape[-1] % (owner[-1] // one.shard_shape((owner[-1],))[0]) == 0
        return NamedSharding(where.mesh, PartitionSpec(*spec[:-1], spec[-1] if divides else None))
    for axis in range(len(owner)):
        if shape == owner[:axis] + owner[axis + 1 :]:
            return NamedSharding(where.mesh, PartitionSpec(*spec[:axis], *spec[axis + 1 :]))
    return NamedSharding(where.mesh, PartitionSpec())
