"""Stacked weights, layer by layer: quantised, taken apart by layers, fitted to the quantisation error, and merged."""

import functools
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alpacare_jax.adapters import freezing
from alpacare_jax.adapters.lora import dense
from alpacare_jax.adapters.quantize import Layout, QuantizedWeight, SteppedWeight, quantize
from alpacare_jax.adapters.residual import nearest
from alpacare_jax.model import Params
from alpacare_jax.model.params import flatten, unflatten


def quantize_layers(weight: jax.Array, layout: Layout) -> QuantizedWeight | SteppedWeight:
    """Quantise a weight [L, I, O], each layer by itself."""
    return jax.lax.map(functools.partial(quantize, layout=layout), weight)


def residuals(
    weight: jax.Array, moments: jax.Array, like: tuple[Any, Any], *, layout: Layout, scale: float
) -> tuple[jax.Array, jax.Array]:
    """Return the A and B of every layer that take back most of what quantising takes, see :func:`nearest`.

    Args:
        weight: The whole weight, [L, I, O].
        moments: Second moments of its inputs, fp32 [L, i, i], with i the size of the axes I together.
        like: A and B as they were drawn; the result has their shapes and dtypes.
        layout: How the weight is quantised.
        scale: Of the adapters.
    """
    rank = like[1].shape[1]

    def of_layer(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        whole, moment = pair
        error = whole.astype(jnp.float32) - quantize(whole, layout).dense()
        return nearest(error.reshape(moment.shape[0], -1), moment, rank)

    a, b = jax.lax.map(of_layer, (weight, moments))
    return a.reshape(like[0].shape).astype(like[0].dtype), (b / scale).reshape(like[1].shape).astype(
        like[1].dtype
    )


def some_layers(leaf: Any, layers: Sequence[int]) -> Any:
    """Return some layers of a placed array or shape, where it lies."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(layers), *leaf.shape[1:]), leaf.dtype, sharding=leaf.sharding)
    return jax.jit(functools.partial(freezing.take, layers=layers), out_shardings=leaf.sharding)(leaf)


def keys_of_layers(keys: jax.Array, name: str, layers: int) -> jax.Array:
    """Return keys [L, B] from keys [B]: others for every layer and every weight."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, zlib.crc32(name.encode())))(keys)
    return jax.vmap(lambda layer: jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys))(
        jnp.arange(layers)
    )


def merge(params: Params, dtype: str, places: Params) -> Params:
    """Turn joined parameters into plain ones of the model's shape, one layer's fp32 at a time.

    Args:
        params: What :meth:`Partition.join` returns, on devices; every process of a run must call.
        dtype: Of the result.
        places: Shardings of the result.
    """

    def plain(weight: Any) -> jax.Array:
        if isinstance(weight, jax.Array):
            return weight.astype(dtype)
        return jax.lax.map(lambda layer: dense(layer).astype(dtype), weight)

    where = flatten(places)
    return unflatten(
        {name: jax.jit(plain, out_shardings=where[name])(leaf) for name, leaf in flatten(params).items()}
    )
