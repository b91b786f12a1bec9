"""Parameter trees by the names of their leaves, for messages and for comparing checkpoint and model.

The tree itself is that of ``alpacare_jax.model.params``: nested dicts of arrays, keyed by the model's attribute names.
A leaf's name is its path joined by dots, ``layers.attention.query``.
"""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.model import ComputeConfig, LlamaConfig
from alpacare_jax.model.params import Architecture, Params


def abstract_params(config: LlamaConfig, *, dtype: str = "float32", mesh: Mesh | None = None) -> Params:
    """Return the parameter tree's shapes, dtypes and shardings.

    Args:
        config: The model's shape.
        dtype: Dtype of the parameters, "float32" or "bfloat16".
        mesh: Where they are to lie; one local device when None.

    Returns:
        A parameter tree with ``jax.ShapeDtypeStruct`` leaves.

    Raises:
        ShardingError: The mesh does not divide the model.
    """
    architecture = Architecture(config, ComputeConfig(param_dtype=dtype))
    mesh = sharding.single_device_mesh() if mesh is None else mesh
    architecture.check_mesh(mesh)
    return architecture.abstract_on(mesh)


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
