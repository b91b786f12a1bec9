"""Writing our parameters as a Hugging Face folder that ``transformers`` loads unchanged."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from alpacare_jax import checkpoint
from alpacare_jax.checkpoint import failures
from alpacare_jax.checkpoint.folders import atomic_folder
from alpacare_jax.convert import table
from alpacare_jax.convert.hf_folder import complete_generation_config, write_config
from alpacare_jax.convert.sources import SAFETENSORS_DTYPES
from alpacare_jax.errors import ConfigError, ConversionError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.params import Params
from datagen.files import write_json

EXPORT_FILES = (*checkpoint.CONFIG_FILES, "model*.safetensors", "model.safetensors.index.json")
"""Patterns of the files of an exported folder."""

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


def export(
    params: Params,
    config: LlamaConfig,
    hf_folder: Path,
    out: Path,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a Hugging Face folder, whole or not at all.

    Args:
        params: The parameters; memory beside them is one leaf's worth. Leaves that are read when used, as
            :func:`alpacare_jax.checkpoint.open_params` gives them, are read once each.
        config: The model's shape.
        hf_folder: Folder of config, tokenizer and chat template, carried over unchanged.
        out: The folder to make.
        dtype: Dtype of the weights, "float32", "bfloat16" or "float16"; as the parameters are when None.
        max_shard_bytes: Largest size of one file of weights, in bytes; a larger tensor gets its own.
        overwrite: Replace an existing Hugging Face folder.
        progress: Told after each leaf how many tensors are done, and of how many.

    Raises:
        CheckpointError: The disk is full.
        ConfigError: The dtype is unknown.
        ConversionError: A value does not fit the dtype.
        DataError: The folder exists.
    """
    leaves = checkpoint.flatten(params)
    dtype = dtype or str(leaves["embed"].dtype)
    if dtype not in DTYPES:
        raise ConfigError(
            "dtype has an unknown value", where="dtype", found=dtype, expected=", ".join(DTYPES)
        )
    with (
        atomic_folder(out, overwrite=overwrite, marker="config.json", own=EXPORT_FILES) as partial,
        failures.writing(out, "the export"),
    ):
        checkpoint.copy_config_files(hf_folder, partial)
        write_config(partial, config, dtype)
        complete_generation_config(partial)
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
    leaves: Mapping[str, Any],
    config: LlamaConfig,
    folder: Path,
    dtype: np.dtype,
    max_shard_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``model.safetensors``, or several files and their index.

    The files are laid out first and then filled leaf by leaf, through memory that the system writes out by itself: so
    one leaf is in memory at a time, however the tensors of its layers are spread over the files.
    """
    shards = plan_shards(config, dtype.itemsize, max_shard_bytes)
    sizes, expected = table.axis_sizes(config), table.expected_tensors(config, "hf")
    shapes = {name: table.shape_of(rule.hf_axes, sizes) for name, (rule, _) in expected.items()}
    mode = (folder / "config.json").stat().st_mode & 0o777
    weight_map: dict[str, str] = {}
    places: dict[str, np.ndarray] = {}
    for number, names in enumerate(shards, start=1):
        file = (
            f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        )
        places |= _lay_out(folder / file, {name: shapes[name] for name in sorted(names)}, dtype)
        (folder / file).chmod(mode)
        weight_map |= dict.fromkeys(names, file)
    done = 0
    for leaf in dict.fromkeys(rule.ours for rule, _ in expected.values()):
        ours = np.asarray(leaves[leaf])
        for name, (rule, layer) in expected.items():
            if rule.ours == leaf:
                part = table.rearrange(ours[layer] if rule.stacked else ours, rule.axes, rule.hf_axes, sizes)
                _check_range(part, dtype, name)
                places.pop(name)[...] = part
                done += 1
        del ours
        if progress is not None:
            progress(done, len(expected))
    if len(shards) > 1:
        total = sum(math.prod(shape) for shape in shapes.values())
        metadata = {"total_size": total * dtype.itemsize, "total_parameters": total}
        write_json(folder / "model.safetensors.index.json", {"metadata": metadata, "weight_map": weight_map})


def _lay_out(file: Path, shapes: dict[str, tuple[int, ...]], dtype: np.dtype) -> dict[str, np.ndarray]:
    """Make a safetensors file of the right size, and return where each tensor's values go.

    Source: the format's description in the ``safetensors`` package: length, JSON header, values.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers insists on the mark
    end = 0
    kind = next(name for name, known in SAFETENSORS_DTYPES.items() if known == dtype)
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        os.posix_fallocate(
            out.fileno(), 0, 8 + len(text) + end
        )  # a full disk is told now, not by a crash later
    values = np.memmap(file, np.uint8, "r+")[8 + len(text) :]
    return {
        name: values[slice(*header[name]["data_offsets"])].view(dtype).reshape(shape)
        for name, shape in shapes.items()
    }


def _check_range(tensor: np.ndarray, dtype: np.dtype, name: str) -> None:
    """Refuse values that float16 cannot hold."""
    if dtype != np.float16 or not tensor.size:
        return
    largest = float(np.abs(tensor).max())
    if largest > float(np.finfo(np.float16).max):
        raise ConversionError(
            "a weight is too large for float16",
            where=name,
            found=largest,
            remedy="export as bfloat16 or float32",
        )
