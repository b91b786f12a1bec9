"""Parameters as a plain nested dict of arrays: the one form in which they are trained, saved and converted.

A model is a fixed graph and such a dict. The dict's keys are the attribute names of :class:`Llama`, for example
``params["layers"]["attention"]["query"]`` of shape [L, D, N, H].
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.model.config import LlamaConfig
from alpacare_jax.model.llama import ComputeConfig, Llama

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model without values: what is needed to make, place, save and run its parameters.

    Args:
        config: The model's shape.
        compute: Dtypes and recomputation.

    Example:
        >>> architecture = Architecture(model.config)
        >>> params = architecture.init(seed=0, mesh=sharding.single_device_mesh())
        >>> logits_BTV = architecture.model(params)(tokens_BT)
    """

    config: LlamaConfig
    compute: ComputeConfig = ComputeConfig()

    @functools.cached_property
    def _described(self) -> dict[str, tuple[jax.ShapeDtypeStruct, tuple[str | None, ...]]]:
        """Every parameter's shape and logical axes by its name."""
        return {
            ".".join(map(str, path)): (
                jax.ShapeDtypeStruct(variable.shape, variable.dtype),
                variable.logical_axes,
            )
            for path, variable in nnx.to_flat_state(_split(self.config, self.compute)[1])
        }

    def abstract(self) -> Params:
        """Return the parameters as shape-and-dtype structs, without shardings."""
        return unflatten({name: leaf for name, (leaf, _) in self._described.items()})

    def axes(self) -> Params:
        """Return the logical axes of every parameter, a tuple in place of each array."""
        return unflatten({name: axes for name, (_, axes) in self._described.items()})

    def axes_on(self, mesh: Mesh) -> Params:
        """Return the logical axes of every parameter as they can be split on a mesh, see :func:`sharding.fitted`."""
        return jax.tree.map(
            lambda leaf, axes: sharding.fitted(mesh, axes, leaf.shape), self.abstract(), self.axes()
        )

    def shardings(self, mesh: Mesh) -> Params:
        """Return the sharding of every parameter on a mesh."""
        return jax.tree.map(
            lambda leaf, axes: sharding.placed(mesh, axes, leaf.shape), self.abstract(), self.axes()
        )

    def abstract_on(self, mesh: Mesh) -> Params:
        """Return shape structs that carry their shardings on a mesh, as a restore wants them."""
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            self.abstract(),
            self.shardings(mesh),
        )

    def init(self, seed: int, mesh: Mesh) -> Params:
        """Draw initial parameters, each device making only its own shards.

        Raises:
            ShardingError: The mesh does not divide the model.
        """
        self.check_mesh(mesh)

        def draw() -> Params:
            model = Llama(self.config, self.compute, rngs=nnx.Rngs(seed))
            return nnx.to_pure_dict(nnx.state(model, nnx.Param))

        return jax.jit(draw, out_shardings=self.shardings(mesh))()

    def model(self, params: Params) -> Llama:
        """Put parameters into the model. Works on arrays and on tracers inside jit."""
        graph, empty = _split(self.config, self.compute)
        state = jax.tree.map(lambda leaf: leaf, empty)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)

    def check_mesh(self, mesh: Mesh) -> None:
        """Check that the model can be split over the mesh; heads, vocabulary and MLP need not divide.

        Raises:
            ShardingError: Names the sizes that do not divide, or the devices that would have no head to attend with.
        """
        config = self.config
        sharding.check_divides(mesh, {"embed": config.hidden_size})
        sharding.check_enough(mesh, "heads", config.num_attention_heads)


@functools.lru_cache(maxsize=32)
def _split(config: LlamaConfig, compute: ComputeConfig) -> tuple[Any, Any]:
    """Return a model's graph and its state as shapes; cached, since tracing the model for them is slow."""
    return nnx.split(nnx.eval_shape(lambda: Llama(config, compute, rngs=nnx.Rngs(0))), nnx.Param)


def params_of(model: Llama) -> Params:
    """Return a model's parameters as the plain nested dict."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every leaf of a parameter tree.

    Example:
        >>> flatten({"norm": {"scale": 1}, "embed": 2})
        {'norm.scale': 1, 'embed': 2}
    """
    leaves: dict[str, Any] = {}
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
