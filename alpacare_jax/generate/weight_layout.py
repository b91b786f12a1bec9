"""Laying a model out for generation: layers one by one, every array where its logical axes put it."""

import functools
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from alpacare_jax import sharding
from alpacare_jax.errors import ShardingError
from alpacare_jax.model import Architecture, Llama, Params

CACHE_AXES = ("batch", "kv_heads", None, None)
ROW_AXES = (None, "kv_heads", None, None)


def check_mesh(architecture: Architecture, mesh: Mesh) -> None:
    """Check that a model can generate on a mesh.

    Raises:
        ShardingError: The mesh does not divide the model, or splits the length of a row.
    """
    if sharding.RULES["length"] in mesh.shape and mesh.shape[str(sharding.RULES["length"])] > 1:
        raise ShardingError(
            "generation does not support splitting sequences",
            where="mesh",
            found=f"{sharding.RULES['length']}={mesh.shape[str(sharding.RULES['length'])]}",
            expected=f"{sharding.RULES['length']}=1",
            remedy="give these devices to another axis",
        )
    architecture.check_mesh(mesh)


def place(architecture: Architecture, params: Params, mesh: Mesh) -> Params:
    """Unstack the layers, cast to the compute dtype and put every weight onto the mesh.

    Weights that lie apart are read without being copied at every step, and weights already in the compute
    dtype need no cast at every step.

    Args:
        architecture: The model's shape and dtypes.
        params: The stacked parameters, on any devices or in host memory; they stay as they are.
        mesh: Where to.

    Returns:
        Parameters whose ``layers`` is a dict from layer number to that layer's own weights.
    """
    dtype = jnp.dtype(architecture.compute.dtype)
    axes = architecture.axes_on(mesh)

    def move(leaf: Any, leaf_axes: tuple[str, ...]) -> jax.Array:
        """Move a leaf that stands outside the layers."""
        where = sharding.named(mesh, leaf_axes)
        return jax.jit(lambda x: x.astype(dtype), out_shardings=where)(_on_mesh(leaf, where))

    def move_layers(leaf: Any, leaf_axes: tuple[str, ...]) -> list[jax.Array]:
        """Move a leaf that stacks all layers, [L, ...], and take it apart: one array a layer."""
        # The layer's number is an argument, so that one small program serves all layers.
        take = jax.jit(
            lambda x, i: jax.lax.dynamic_index_in_dim(x, i, keepdims=False).astype(dtype),
            out_shardings=sharding.named(mesh, leaf_axes[1:]),
        )
        stacked = _on_mesh(leaf, sharding.named(mesh, leaf_axes))
        return [take(stacked, i) for i in range(architecture.config.num_hidden_layers)]

    outer = {key: value for key, value in params.items() if key != "layers"}
    outer_axes = {key: value for key, value in axes.items() if key != "layers"}
    placed: Params = jax.tree.map(move, outer, outer_axes)
    stacked = jax.tree.map(move_layers, params["layers"], axes["layers"])
    placed["layers"] = {
        i: jax.tree.map(lambda pieces, i=i: pieces[i], stacked, is_leaf=_is_list)
        for i in range(architecture.config.num_hidden_layers)
    }
    return placed


def fingerprint(placed: Params, mesh: Mesh) -> str:
    """Return a hash of every number of the weights; every process must call.

    The same on every mesh; another dtype of the weights gives another hash.
    """

    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def digest(leaf: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        place = jnp.zeros(leaf.shape, jnp.uint32)
        for axis in range(leaf.ndim):
            place = place * jnp.uint32(0x9E3779B1) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        # Each number is mixed with its place, so that numbers that trade places change the sum. Whole numbers that
        # wrap around sum to the same in every order.
        mixed = (bits.astype(jnp.uint32) ^ place * jnp.uint32(0x85EBCA6B)) * jnp.uint32(0xC2B2AE35)
        return jnp.sum((mixed ^ mixed >> 15) * jnp.uint32(0x2C1B3C6D))

    leaves = jax.tree_util.tree_leaves_with_path(placed)
    sums = jax.device_get([digest(leaf) for _, leaf in leaves])
    state = [
        [jax.tree_util.keystr(path), str(leaf.dtype), leaf.shape, int(found)]
        for (path, leaf), found in zip(leaves, sums, strict=True)
    ]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]


def unstacked_graph(architecture: Architecture) -> tuple[Any, Any]:
    """Return graph and abstract state of the model with its layers one by one, for :func:`rebuild`."""
    model = nnx.eval_shape(
        lambda: Llama(architecture.config, architecture.compute, rngs=nnx.Rngs(0)).unstack()
    )
    return nnx.split(model, nnx.Param)


def rebuild(graph_and_state: tuple[Any, Any], placed: Params) -> Llama:
    """Put placed weights into the model. Works on tracers inside jit."""
    graph, state = graph_and_state
    state = jax.tree.map(lambda leaf: leaf, state)  # nnx writes into the state it is given
    nnx.replace_by_pure_dict(state, placed)
    return nnx.merge(graph, state)


def to_device(mesh: Mesh, array: Any) -> jax.Array:
    """Put a small host array, the same in every process, onto every device of the mesh."""
    where = sharding.replicated(mesh)
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])


def _is_list(node: object) -> bool:
    return isinstance(node, list)


def _on_mesh(leaf: Any, where: NamedSharding) -> Any:
    """Bring an array that lies on other devices, or in host memory, to where jit can take it."""
    if isinstance(leaf, jax.Array) and leaf.sharding.device_set == where.device_set:
        return leaf
    return jax.device_put(leaf, where)
