"""Which parameters a run trains and which stay as they are: one tree becomes two, and one again in the step.

Three cases. Everything is trained: the frozen tree is empty. Some paths are frozen: each tree holds its part of the
model, of a stacked weight its part of the layers. Adapters: the trained tree holds them alone, the frozen one the
whole base, quantised where asked.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.adapters import freezing
from alpacare_jax.adapters.config import TARGETS, AdapterConfig, Target
from alpacare_jax.adapters.lora import LoraWeight, column_norms, dense, draw
from alpacare_jax.adapters.quantize import Layout
from alpacare_jax.adapters.stacked import keys_of_layers, quantize_layers, residuals, some_layers
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Architecture, Params
from alpacare_jax.model.params import flatten, unflatten


@dataclasses.dataclass(frozen=True)
class Partition:
    """Splits a model's parameters into trained and frozen ones, and joins them.

    Args:
        architecture: The model without values; its ``param_dtype`` is that of what is trained.
        adapter: Adapters beside the model, kind "none" for none.
        freeze: Patterns of the paths that keep their values, see :mod:`alpacare_jax.adapters.freezing`.

    Raises:
        ConfigError: An adapter is larger than its target or lies on a frozen path; a pattern is unknown.
    """

    architecture: Architecture
    adapter: AdapterConfig = AdapterConfig()
    freeze: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.adapter.check_ranks(self.architecture.config)
        if self.freeze and self.frozen_layers and self.adapter.on:
            self._check_targets()

    @functools.cached_property
    def frozen_layers(self) -> dict[str, tuple[int, ...]]:
        """The layers that are frozen of each leaf, by its name; see :func:`freezing.frozen_layers`."""
        return freezing.frozen_layers(self._layers_of_leaves(), self.freeze) if self.freeze else {}

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
            return self._divide(self.architecture.abstract_on(mesh))
        shapes = jax.eval_shape(functools.partial(self._draw, seed=0), self.base.abstract())
        trained = jax.tree.map(functools.partial(_placed, mesh), shapes, self._adapter_axes())
        frozen = flatten(self.base.abstract_on(mesh))
        for name, layout in self._layouts.items():
            shape = jax.eval_shape(functools.partial(quantize_layers, layout=layout), frozen[name])
            frozen[name] = jax.tree.map(functools.partial(_placed, mesh), shape, shape.axes(self._axes[name]))
        return trained, unflatten(frozen)

    def abstract_moments(self, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shapes and places of the second moments that :meth:`split` takes, by names of weights."""
        found = {}
        for target in {target.source.name: target.source for target in self._targets}.values():
            layers, *sides = flatten(self._abstract)[target.path].shape
            size = math.prod(sides[: target.inputs])
            shape = jax.ShapeDtypeStruct((layers, size, size), jnp.float32)
            found[target.path] = _placed(mesh, shape, (self._axes[target.path][0], "embed", None))
        return found

    def split(
        self, params: Params, seed: int, mesh: Mesh, moments: dict[str, jax.Array] | None = None
    ) -> tuple[Params, Params]:
        """Return trained and frozen parameters at the start of a run.

        Args:
            params: The model's parameters, in the dtype of :attr:`base`; not to be used afterwards.
            seed: Of the adapters' first values.
            mesh: The devices.
            moments: Of the inputs of weights, as :meth:`abstract_moments` names them, where ``start`` is "residual".
        """
        if not self.adapter.on:
            return self._divide(params)
        places = sharding.shardings_of(self.abstract_on(mesh)[0])
        trained = jax.jit(functools.partial(self._draw, seed=seed), out_shardings=places)(params)
        if self.adapter.start == "residual":
            trained = self._fit_residual(trained, params, moments or {}, places)
        return trained, self.freeze_base(params, mesh)

    def _fit_residual(
        self, trained: Params, params: Params, moments: dict[str, jax.Array], places: Params
    ) -> Params:
        """Return adapters that hold what they can of the difference between the base and its quantised form."""
        held, leaves, where = flatten(trained), flatten(params), flatten(places)
        for target in self._targets:
            parts = (f"{target.path}.a", f"{target.path}.b")
            where_parts = tuple(where[part] for part in parts)
            # Weights of one shape share a program.
            solve = jax.jit(residuals, static_argnames=("layout", "scale"), out_shardings=where_parts)
            like, layout = tuple(held[part] for part in parts), self._layouts[target.path]
            moment = moments[target.source.path]
            solved = solve(leaves[target.path], moment, like, layout=layout, scale=self.adapter.scale)
            held |= dict(zip(parts, solved, strict=True))
        return unflatten(held)

    def freeze_base(self, params: Params, mesh: Mesh) -> Params:
        """Return the frozen base of adapters.

        Args:
            params: The model's parameters; not to be used afterwards, since what is quantised is let go at once.
            mesh: The devices.
        """
        leaves, places = flatten(params), flatten(self.abstract_on(mesh)[1])
        for name, layout in self._layouts.items():
            where = sharding.shardings_of(places[name])
            pack = jax.jit(quantize_layers, static_argnames="layout", out_shardings=where)
            packed = jax.block_until_ready(pack(leaves[name], layout=layout))
            leaves[name].delete()
            leaves[name] = packed
        return unflatten(leaves)

    def join(self, trained: Params, frozen: Params, keys: jax.Array | None = None) -> Params:
        """Return parameters for :meth:`Architecture.model`; weights with adapters are :class:`LoraWeight`.

        Args:
            trained: The trained tree.
            frozen: The frozen tree.
            keys: A random key a row of the batch, to draw the adapters' dropout with; None for no dropout.
        """
        if not self.adapter.on:
            return self._whole(trained, frozen)
        leaves, held = flatten(frozen), flatten(trained)
        for name in (target.path for target in self._targets):
            parts = {part: held[f"{name}.{part}"] for part in self._parts}
            rows = None
            if keys is not None and self.adapter.dropout:
                rows = keys_of_layers(keys, name, self.architecture.config.num_hidden_layers)
            leaves[name] = LoraWeight(
                leaves[name], **parts, keys=rows, scale=self.adapter.scale, dropout=self.adapter.dropout
            )
        return unflatten(leaves)

    def saved(self, trained: Params, frozen: Params) -> Params:
        """Return the parameters that a checkpoint keeps: only the adapters, or the whole model."""
        return trained if self.adapter.on else self._whole(trained, frozen)

    def abstract_saved(self, mesh: Mesh) -> Params:
        """Return what :meth:`saved` returns as shape structs that carry their shardings."""
        return self.abstract_on(mesh)[0] if self.adapter.on else self.architecture.abstract_on(mesh)

    def _divide(self, params: Params) -> tuple[Params, Params]:
        if not self.freeze:
            return params, {}
        trained, frozen, layers = {}, {}, self._layers_of_leaves()
        for name, leaf in flatten(params).items():
            fixed = self.frozen_layers.get(name, ())
            if not fixed:
                trained[name] = leaf
            elif len(fixed) == (layers[name] or 1):
                frozen[name] = leaf
            else:
                frozen[name] = some_layers(leaf, fixed)
                trained[name] = some_layers(leaf, [i for i in range(leaf.shape[0]) if i not in fixed])
                if isinstance(leaf, jax.Array):
                    jax.block_until_ready((frozen[name], trained[name]))
                    leaf.delete()  # or whoever else holds it would keep a second copy for the whole run
        return unflatten(trained), unflatten(frozen)

    def _whole(self, trained: Params, frozen: Params) -> Params:
        if not self.freeze:
            return trained
        leaves, fixed = flatten(trained), flatten(frozen)
        for name, leaf in fixed.items():
            if name in leaves:
                put = functools.partial(freezing.put_together, layers=self.frozen_layers[name])
                leaves[name] = jax.jit(put)(leaves[name], leaf)
            else:
                leaves[name] = leaf
        return unflatten(leaves)

    def _layers_of_leaves(self) -> dict[str, int | None]:
        layers = self.architecture.config.num_hidden_layers
        return {name: layers if name.startswith("layers.") else None for name in flatten(self._abstract)}

    def _check_targets(self) -> None:
        layers = self._layers_of_leaves()
        targets = [path for t in self._targets for _, path in freezing.paths_of(t.path, layers[t.path])]
        clashes = [
            pattern for pattern in self.freeze if any(freezing.matches(path, pattern) for path in targets)
        ]
        if clashes:
            raise ConfigError(
                "train.freeze matches an adapted weight",
                where="train.freeze, adapter.targets",
                found=", ".join(map(repr, clashes)),
                remedy="leave train.freeze out: beside adapters the whole base is frozen; or name fewer targets",
            )

    @functools.cached_property
    def _abstract(self) -> Params:
        return self.architecture.abstract()

    @functools.cached_property
    def _axes(self) -> dict[str, tuple[str, ...]]:
        return flatten(self.architecture.axes())

    @property
    def _targets(self) -> list[Target]:
        return [target for name, target in TARGETS.items() if name in self.adapter.targets]

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("a", "b", "magnitude") if self.adapter.kind == "dora" else ("a", "b")

    @functools.cached_property
    def _layouts(self) -> dict[str, Layout]:
        """Return how each quantised leaf is cut.

        nf4 and int8: into blocks along heads or MLP, scales along the model's width; int4: along the last summed axis.
        """
        if not self.adapter.quantized:
            return {}
        leaves, layouts, kind = flatten(self._abstract), {}, self.adapter.base
        for target in TARGETS.values():
            axes = self._axes[target.path]
            along = "head" if "head" in axes else "mlp"
            cut = (target.inputs if kind == "int4" else axes.index(along)) - len(axes)
            scales = axes.index("embed") - len(axes)
            layouts[target.path] = Layout.of(kind, leaves[target.path].shape, cut, scales)
        return layouts

    def _draw(self, params: Params, *, seed: int) -> Params:
        """Draw the adapters; DoRA's magnitudes are the base's own."""
        held: Params = {}
        leaves = flatten(params)
        dtype = jnp.dtype(self.architecture.compute.param_dtype)
        for target in self._targets:
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(target.name.encode()))
            weight = leaves[target.path]
            parts = draw(key, weight.shape, target.inputs, self.adapter.rank, dtype)
            if self.adapter.kind == "dora":
                if layout := self._layouts.get(target.path):
                    weight = jax.lax.map(dense, quantize_layers(weight, layout))
                parts["magnitude"] = column_norms(weight, target.inputs).astype(dtype)
            held |= {f"{target.path}.{part}": value for part, value in parts.items()}
        return unflatten(held)

    def _adapter_axes(self) -> Params:
        held: dict[str, tuple[str | None, ...]] = {}
        for target in self._targets:
            layers, *sides = self._axes[target.path]
            inputs, outputs = sides[: target.inputs], sides[target.inputs :]
            axes = {
                "a": (layers, *inputs, None),
                "b": (layers, None, *outputs),
                "magnitude": (layers, *outputs),
            }
            held |= {f"{target.path}.{part}": axes[part] for part in self._parts}
        return unflatten(held)


def count(tree: Params) -> int:
    """Count the numbers in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def bytes_a_device(tree: Any) -> int:
    """Return how many bytes of a tree of placed arrays or shapes lie on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _placed(mesh: Mesh, leaf: Any, axes: tuple[str | None, ...]) -> jax.ShapeDtypeStruct:
    """Place a leaf by its axes, which may be uneven; what no device could hold a part of, all hold whole."""
    axes = tuple(
        axis if sharding.divides(mesh, axis, size) else None
        for axis, size in zip(sharding.fitted(mesh, axes, leaf.shape), leaf.shape, strict=True)
    )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.named(mesh, axes))
