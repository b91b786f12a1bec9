"""Loading foreign tensors into our parameter tree, one leaf at a time, straight onto their devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alpacare_jax import checkpoint
from alpacare_jax.convert import table
from alpacare_jax.convert.sources import Source
from alpacare_jax.errors import ConversionError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.params import Params

Bounds = tuple[tuple[int, int], ...]  # begin and end along every axis


def load(
    source: Source,
    config: LlamaConfig,
    *,
    mesh: Mesh | None = None,
    dtype: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Params:
    """Load a model's parameters.

    Every shard of a leaf is filled from the mapped files by itself: a process reads only what its devices hold,
    and host memory beside the result is one shard of one leaf (one leaf, where the source is quantised).

    Args:
        source: The tensors.
        config: The shape they must have.
        mesh: Where the parameters go; one local device when None.
        dtype: Dtype of the parameters, "float32" or "bfloat16"; None for the narrower that keeps every bit.
        progress: Told after each leaf how many are done, and of how many.

    Returns:
        The parameter tree.

    Raises:
        ConversionError: Names every tensor that is missing, unmapped, unexpected, duplicate or wrong-shaped.
        ShardingError: The mesh does not divide the model.
    """
    check(source, config)
    wanted = checkpoint.flatten(checkpoint.abstract_params(config, dtype=dtype or source.dtype, mesh=mesh))
    rules = {rule.ours: rule for rule in table.RULES if rule.exists(config)}
    if set(rules) != set(wanted):  # the table and the model are both ours
        raise AssertionError(sorted(set(rules) ^ set(wanted)))
    leaves = {}
    for name, leaf in wanted.items():
        leaves[name] = _load_leaf(source, rules[name], leaf, config)
        if progress is not None:
            progress(len(leaves), len(wanted))
    return checkpoint.unflatten(leaves)


_SHAPES = (  # the keys of a config that decide which tensors there are, and their sizes
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
)


def check(source: Source, config: LlamaConfig) -> None:
    """Compare the names and shapes of a source with those a model needs.

    Raises:
        ConversionError: Names every tensor that does not fit, and how.
    """
    if config.num_hidden_layers > len(source.tensors):  # before a list of their tensors fills the memory
        raise ConversionError(
            "the weights do not match the config",
            where=source.where,
            found=f"{len(source.tensors)} tensors",
            expected=f"those of {config.num_hidden_layers:,} layers (num_hidden_layers)",
            remedy="check that config and weights belong together and that the download is whole",
        )
    expected, sizes = table.expected_tensors(config, source.dialect), table.axis_sizes(config)
    problems = list(source.problems)
    problems += [f"missing: {name}" for name in expected if name not in source.tensors]
    for name, tensor in source.tensors.items():
        if name in expected:
            shape = table.shape_of(expected[name][0].layout(source.dialect), sizes)
            if tensor.shape != shape:
                problems.append(f"wrong shape: {name} is {list(tensor.shape)}, expected {list(shape)}")
        elif not table.DERIVED[source.dialect].fullmatch(name):
            problems += _explain_extra(source, config, name)
    if problems:
        raise ConversionError(
            "the weights do not match the config",
            where=source.where,
            found="\n            ".join([f"{len(problems)} tensor(s) that do not fit", *_first(problems)]),
            expected=f"{len(expected)} tensors, by the config's "
            + ", ".join(f"{key} {value}" for key, value in config.to_dict().items() if key in _SHAPES),
            remedy="check that config and weights belong together and that the download is whole",
        )


def _explain_extra(source: Source, config: LlamaConfig, name: str) -> list[str]:
    """Say why a tensor that is not expected is there; nothing if it is harmless."""
    found = table.find_rule(name, source.dialect)
    if found is None:
        return [f"unmapped: {name} {list(source.tensors[name].shape)} is not a tensor of LLaMA"]
    rule, layer = found
    if layer >= config.num_hidden_layers:
        return [f"unexpected: {name}, but the config has {config.num_hidden_layers} layers"]
    if rule.when != "untied":
        return [f"unexpected: {name}, but the config has {rule.when} false"]
    table_name = next(r for r in table.RULES if r.ours == "embed").name(source.dialect)
    embed = source.tensors.get(table_name)
    if embed is not None and np.array_equal(embed.read(), source.tensors[name].read()):
        return []  # tied embeddings, written out twice
    return [f"unexpected: {name} differs from {table_name}, but the config has tie_word_embeddings true"]


def _first(problems: list[str], most: int = 20) -> list[str]:
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return problems[:most] + more


def _load_leaf(source: Source, rule: table.Rule, wanted: Any, config: LlamaConfig) -> jax.Array:
    sizes = table.axis_sizes(config)

    def read(layer: int) -> np.ndarray:
        tensor = source.tensors[rule.name(source.dialect, layer)].read()
        return table.rearrange(tensor, rule.layout(source.dialect), rule.axes, sizes)

    mapped = source.tensors[rule.name(source.dialect)].mapped

    @functools.lru_cache(maxsize=1)  # replicas ask for the same piece again
    def fill(bounds: Bounds) -> np.ndarray:
        index = tuple(slice(*bound) for bound in bounds)
        if not rule.stacked:
            return np.ascontiguousarray(read(0)[index].astype(wanted.dtype))
        out = np.empty([end - begin for begin, end in bounds], wanted.dtype)
        for row, layer in enumerate(range(*bounds[0])):
            out[row] = read(layer)[index[1:]]
        return out

    def shard(index: Any) -> np.ndarray:
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, wanted.shape, strict=True))
        # Quantised tensors are decoded whole, so decode them once for all shards.
        return fill(bounds) if mapped else fill(tuple((0, size) for size in wanted.shape))[index]

    return jax.make_array_from_callback(wanted.shape, wanted.sharding, shard)
