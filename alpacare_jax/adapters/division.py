"""Which parameters a run trains and which stay as they are: one tree becomes two, and one again in the step.

Three cases. Everything is trained: the frozen tree is empty. Some paths are frozen: each tree holds its part of the
model. Adapters: the trained tree holds them alone, the frozen one the whole base, quantised where asked.
"""

import dataclasses
import functools
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.adapters.config import TARGETS, AdapterConfig
from alpacare_jax.adapters.lora import LoraWeight, column_norms, dense, draw
from alpacare_jax.model import Architecture, Params


@dataclasses.dataclass(frozen=True)
class Division:
    """Splits a model's parameters into trained and frozen ones, and joins them.

    Args:
        architecture: The model without values; its ``param_dtype`` is that of what is trained.
        adapter: Adapters beside the model, kind "none" for none.

    Raises:
        ConfigError: An adapter is larger than its target.
    """

    architecture: Architecture
    adapter: AdapterConfig = AdapterConfig()

    def __post_init__(self) -> None:
        self.adapter.check_ranks(self.architecture.config)

    @property
    def base(self) -> Architecture:
        """The model as it is opened: with adapters, in the dtype of the frozen weights."""
        if not self.adapter.on:
            return self.architecture
        compute = self.architecture.compute
        dtype = self.adapter.base_dtype(compute.dtype)
        return dataclasses.replace(self.architecture, compute=dataclasses.replace(compute, param_dtype=dtype))

    def abstract_on(self, mesh: Mesh) -> tuple[Params, Params]:
        """Return trained and frozen parameters as shape structs that carry their shardings."""
        if not self.adapter.on:
            return self.architecture.abstract_on(mesh), {}
        shapes = jax.eval_shape(functools.partial(self._draw, seed=0), self.base.abstract())
        trained = jax.tree.map(
            lambda leaf, axes: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding.named(mesh, axes)
            ),
            shapes,
            self._adapter_axes(),
        )
        return trained, self.base.abstract_on(mesh)

    def split(self, params: Params, seed: int, mesh: Mesh) -> tuple[Params, Params]:
        """Return trained and frozen parameters at the start of a run.

        Args:
            params: The model's parameters, in the dtype of :attr:`base`; not to be used afterwards.
            seed: Of the adapters' first values.
            mesh: The devices.
        """
        if not self.adapter.on:
            return params, {}
        places = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_on(mesh)[0])
        trained = jax.jit(functools.partial(self._draw, seed=seed), out_shardings=places)(params)
        return trained, self.freeze(params, mesh)

    def freeze(self, params: Params, mesh: Mesh) -> Params:
        """Return the frozen base of adapters from the model's parameters, which are not to be used afterwards."""
        del mesh
        return params

    def join(self, trained: Params, frozen: Params) -> Params:
        """Return parameters for :meth:`Architecture.model`; weights with adapters are :class:`LoraWeight`."""
        if not self.adapter.on:
            return trained
        params = {**frozen, "layers": dict(frozen["layers"])}
        for name, room in self._targets():
            held = trained["layers"][room][name]
            weight = LoraWeight(params["layers"][room][name], **held, scale=self.adapter.scale)
            params["layers"][room] = params["layers"][room] | {name: weight}
        return params

    def _targets(self) -> list[tuple[str, str]]:
        return [(name, TARGETS[name].room) for name in TARGETS if name in self.adapter.targets]

    def _draw(self, params: Params, *, seed: int) -> Params:
        """Draw the adapters; DoRA's magnitudes are the base's own."""
        tree: Params = {"layers": {}}
        dtype = jnp.dtype(self.architecture.compute.param_dtype)
        for name, room in self._targets():
            weight, inputs = params["layers"][room][name], TARGETS[name].inputs
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
            held = draw(key, weight.shape, inputs, self.adapter.rank, dtype)
            if self.adapter.kind == "dora":
                held["magnitude"] = column_norms(weight, inputs).astype(dtype)
            tree["layers"].setdefault(room, {})[name] = held
        return tree

    def _adapter_axes(self) -> Params:
        tree: Params = {"layers": {}}
        axes = self.architecture.axes()
        for name, room in self._targets():
            layers, *sides = axes["layers"][room][name]
            inputs = TARGETS[name].inputs
            held = {"a": (layers, *sides[:inputs], None), "b": (layers, None, *sides[inputs:])}
            if self.adapter.kind == "dora":
                held["magnitude"] = (layers, *sides[inputs:])
            tree["layers"].setdefault(room, {})[name] = held
        return tree


def merge(params: Params, dtype: str, places: Params) -> Params:
    """Turn joined parameters into plain ones of the model's shape, one layer's fp32 at a time.

    Args:
        params: What :meth:`Division.join` returns, on devices; every process of a run must call.
        dtype: Of the result.
        places: Shardings of the result.
    """

    def plain(weight: Any) -> jax.Array:
        if isinstance(weight, jax.Array):
            return weight.astype(dtype)
        return jax.lax.map(lambda layer: dense(layer).astype(dtype), weight)

    leaves, tree = jax.tree.flatten(params, is_leaf=lambda leaf: hasattr(leaf, "multiply"))
    merged = [
        jax.jit(plain, out_shardings=place)(leaf)
        for leaf, place in zip(leaves, jax.tree.leaves(places), strict=True)
    ]
    return jax.tree.unflatten(tree, merged)


def count(tree: Params) -> int:
    """Count the numbers in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
