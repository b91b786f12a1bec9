"""The one form of a parameter tree: nested dicts of arrays, keyed by the model's own attribute names.

``{"embed": ..., "layers": {"attention": {"query": ...}, ...}, "norm": {"scale": ...}, "head": ...}``: what checkpoints
hold, what conversion makes, what the optimiser sees. A leaf's name in messages is its path joined by dots,
``layers.attention.query``.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.errors import CheckpointError
from alpacare_jax.model import ComputeConfig, Llama, LlamaConfig

Params = dict[str, Any]


def abstract_model(config: LlamaConfig, compute: ComputeConfig | None = None) -> Llama:
    """Return the model with shapes and dtypes in place of weights; costs no memory."""
    return nnx.eval_shape(lambda: Llama(config, compute, rngs=nnx.Rngs(0)))


def abstract_params(config: LlamaConfig, *, dtype: Any = "float32", mesh: Mesh | None = None) -> Params:
    """Return the parameter tree's shapes, dtypes and shardings.

    Args:
        config: The model's shape.
        dtype: Dtype of the parameters.
        mesh: Where they are to lie; one local device when None.

    Returns:
        A parameter tree with ``jax.ShapeDtypeStruct`` leaves.

    Raises:
        ShardingError: The mesh does not divide the model.
    """
    if mesh is not None:
        check_mesh(config, mesh)
    leaves = {}
    for path, variable in nnx.to_flat_state(nnx.state(abstract_model(config), nnx.Param)):
        axes = variable.get_metadata("logical_axes")
        place = _one_device() if mesh is None else sharding.named(mesh, axes)
        leaves[".".join(map(str, path))] = jax.ShapeDtypeStruct(
            variable.get_value().shape, jnp.dtype(dtype), sharding=place
        )
    return unflatten(leaves)


def check_mesh(config: LlamaConfig, mesh: Mesh) -> None:
    """Check that a mesh divides every parameter.

    Raises:
        ShardingError: Names the sizes that do not divide.
    """
    sizes = {
        "vocab": config.vocab_size,
        "embed": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "mlp": config.intermediate_size,
    }
    sharding.check_divides(mesh, sizes)


def params_of(model: Llama) -> Params:
    """Return a model's parameters as a tree; the arrays are shared, not copied."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def with_params(model: Llama, params: Params) -> Llama:
    """Return a model like this one (which may be abstract) that holds these parameters.

    Raises:
        CheckpointError: The tree is not this model's.
    """
    graph, state = nnx.split(model)
    problems = differences(flatten(params), flatten(nnx.to_pure_dict(state)))
    if problems:
        raise CheckpointError("the parameters are not this model's", found="; ".join(problems))
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def build_model(config: LlamaConfig, params: Params, compute: ComputeConfig | None = None) -> Llama:
    """Return the model of a shape that holds these parameters."""
    return with_params(abstract_model(config, compute), params)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every leaf of a parameter tree.

    Example:
        >>> flatten({"norm": {"scale": 1}, "embed": 2})
        {'norm.scale': 1, 'embed': 2}
    """
    leaves = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> Params:
    """Undo :func:`flatten`."""
    tree: Params = {}
    for name, value in leaves.items():
        *folders, last = name.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = value
    return tree


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Say how named leaves differ in presence and shape from those expected.

    Returns:
        One phrase a leaf, such as ``"norm.scale: [32], expected [64]"``; empty when they agree.
    """
    problems = []
    for name in sorted({*found, *expected}):
        if name not in found:
            problems.append(f"{name}: missing, expected {list(expected[name].shape)}")
        elif name not in expected:
            problems.append(f"{name}: {list(found[name].shape)}, expected no such parameter")
        elif tuple(found[name].shape) != tuple(expected[name].shape):
            problems.append(f"{name}: {list(found[name].shape)}, expected {list(expected[name].shape)}")
    return problems


def shorten(problems: list[str], most: int = 12) -> str:
    """Join phrases into one, the first ``most`` of them and the number of the rest."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def _one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
