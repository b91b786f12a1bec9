"""Writing our parameters as a Hugging Face folder that ``transformers`` loads unchanged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from alpacare_jax import checkpoint
from alpacare_jax.checkpoint import failures
from alpacare_jax.checkpoint import params as trees
from alpacare_jax.checkpoint.folders import atomic_folder
from alpacare_jax.convert import hf_folder, table
from alpacare_jax.errors import ConversionError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.params import Params

EXPORT_FILES = (*checkpoint.TRAVELLING, "model*.safetensors", "model.safetensors.index.json")
"""Patterns of the files of an exported folder."""

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


def export(
    params: Params,
    config: LlamaConfig,
    assets: Path,
    out: Path,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a Hugging Face folder, whole or not at all.

    Args:
        params: The parameters; memory beside them is one file's worth.
        config: The model's shape.
        assets: Folder of config, tokenizer and chat template, carried over unchanged.
        out: The folder to make.
        dtype: Dtype of the weights, "float32", "bfloat16" or "float16"; as the parameters are when None.
        max_shard_bytes: Largest size of one file of weights, in bytes; a larger tensor gets its own.
        overwrite: Replace an existing Hugging Face folder.
        progress: Told after each file of weights how many are done, and of how many.

    Raises:
        CheckpointError: The disk is full.
        ConversionError: A value does not fit the dtype.
        DataError: The folder exists.
    """
    leaves = trees.flatten(params)
    dtype = dtype or str(leaves["embed"].dtype)
    with (
        atomic_folder(out, overwrite=overwrite, marker="config.json", own=EXPORT_FILES) as partial,
        failures.writing(out, "the export"),
    ):
        checkpoint.copy_assets(assets, partial)
        hf_folder.write_config(partial, config, dtype)
        hf_folder.complete_generation_config(partial)
        write_weights(leaves, config, partial, DTYPES[dtype], max_shard_bytes, progress)


def plan_shards(config: LlamaConfig, item_bytes: int, max_shard_bytes: int) -> list[list[str]]:
    """Distribute the tensors over files, in the order of the layers.

    Returns:
        The names in each file.
    """
    sizes, room = table.axis_sizes(config), max_shard_bytes
    shards: list[list[str]] = [[]]
    for name, (rule, _) in table.expected_tensors(config, "hf").items():
        size = int(np.prod(table.shape_of(rule.hf_axes, sizes))) * item_bytes
        if shards[-1] and size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def write_weights(
    leaves: dict[str, Any],
    config: LlamaConfig,
    folder: Path,
    dtype: np.dtype,
    max_shard_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``model.safetensors``, or several files and their index."""
    from safetensors.numpy import save_file

    shards = plan_shards(config, dtype.itemsize, max_shard_bytes)
    expected = table.expected_tensors(config, "hf")
    mode = (folder / "config.json").stat().st_mode & 0o777
    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, start=1):
        file = (
            f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        )
        tensors = {name: _tensor(leaves, config, *expected[name], name, dtype) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})  # transformers insists on the mark
        (folder / file).chmod(mode)  # the library leaves it readable by its owner alone
        weight_map |= dict.fromkeys(names, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
        if progress is not None:
            progress(number, len(shards))
    if len(shards) > 1:
        metadata = {"total_size": total, "total_parameters": total // dtype.itemsize}
        index = json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2)
        (folder / "model.safetensors.index.json").write_text(index + "\n", encoding="utf-8")


def _tensor(
    leaves: dict[str, Any], config: LlamaConfig, rule: table.Rule, layer: int, name: str, dtype: np.dtype
) -> np.ndarray:
    leaf = leaves[rule.ours]
    ours = np.asarray(leaf[layer] if rule.stacked else leaf)
    tensor = table.rearrange(ours, rule.axes, rule.hf_axes, table.axis_sizes(config))
    if dtype == np.float16 and tensor.size and np.abs(tensor).max() > np.finfo(np.float16).max:
        raise ConversionError(
            "a weight is too large for float16",
            where=name,
            found=float(np.abs(tensor).max()),
            remedy="export as bfloat16 or float32",
        )
    return np.ascontiguousarray(tensor.astype(dtype))
