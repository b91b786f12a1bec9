"""Whole conversions: what the verbs import and export call."""

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alpacare_jax import adapters, checkpoint, sharding
from alpacare_jax.convert import adapted, opening, peft_folder
from alpacare_jax.convert.export import EXPORT_FILES, export
from alpacare_jax.convert.load import load
from alpacare_jax.errors import ConfigError, UserError
from alpacare_jax.tokenizer import load_tokenizer
from datagen.progress import ProgressDisplay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion wrote: how many ``tensors`` or ``files``, their bytes, and a ``note`` on what to look at."""

    folder: Path
    parameters: int
    dtype: str = ""
    name: str = ""
    tensors: int = 0
    files: int = 0
    size_bytes: int = 0
    note: str | None = None


def import_model(
    source: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Converted:
    """Import a LLaMA from Hugging Face or GGUF into an Orbax model folder.

    Args:
        source: A Hugging Face folder, a ``.gguf`` file, or a hub name such as ``org/model``.
        out: Model folder to make: ``alpacare.json``, ``params/``, ``hf/``.
        dtype: Dtype of the stored parameters, "float32" or "bfloat16"; the narrower that keeps every bit when None.
        overwrite: Replace an existing model folder.
        progress: Show how far the reading is.

    Returns:
        What was written.

    Raises:
        CheckpointError: The disk is full.
        ConversionError: There is no such model, or its weights do not match its config.
        DataError: The folder exists.

    Examples:
        >>> import_model("HuggingFaceTB/SmolLM2-135M-Instruct", "imported").folder
        PosixPath('imported')
    """
    out = Path(out)
    checkpoint.check_free(out, overwrite)  # before minutes of work
    foreign = opening.find_foreign(source)
    assert foreign.source is not None
    with ProgressDisplay(enabled=progress) as display:
        told = partial(display.update, "reading weights")
        params = load(foreign.source, foreign.config, mesh=sharding.host_mesh(), dtype=dtype, progress=told)
    checkpoint.save_model(
        out, params, foreign.config, hf=foreign.hf_folder, source=foreign.origin, overwrite=overwrite
    )
    return Converted(
        folder=out,
        parameters=foreign.config.parameter_count,
        dtype=str(params["embed"].dtype),
        name=foreign.name,
        tensors=len(foreign.source.tensors),
        note=_describe_turn_end(out / "hf"),
    )


def export_model(
    ckpt: str | Path,
    out: str | Path,
    *,
    step: int | None = None,
    dtype: str | None = None,
    max_shard_size: str | int = "5GB",
    overwrite: bool = False,
    progress: bool = True,
) -> Converted:
    """Export a model folder or a run's checkpoint to a folder that transformers loads unchanged.

    Adapters are merged into their base, quantised where they were trained so. A loaded model is exported with
    ``model.save_pretrained``, adapters alone with ``export_adapters``.

    Args:
        ckpt: Model folder or run folder.
        out: Hugging Face folder to make.
        step: Which checkpoint of a run; its latest when None.
        dtype: Dtype of the weights, "float32", "bfloat16" or "float16"; when None as stored (float16 where an
            imported model came as that).
        max_shard_size: Largest size of one file of weights: bytes, or with KB, MB or GB.
        overwrite: Replace an existing Hugging Face folder.
        progress: Show how far the writing is.

    Returns:
        What was written.

    Raises:
        CheckpointError: The checkpoint is missing or torn, or the disk is full.
        ConfigError: The dtype is unknown, or the size is not a size.
        ConversionError: A value does not fit the dtype.
        DataError: The folder exists.

    Examples:
        >>> export_model("runs/a", "exported", dtype="bfloat16").size_bytes > 0
        True
    """
    ckpt, out, shard_bytes = Path(ckpt), Path(out), parse_size(max_shard_size)
    checkpoint.check_free(out, overwrite, "config.json", EXPORT_FILES)
    described = checkpoint.read_description(ckpt)
    params: Any
    if "adapter" in described:
        params = opening.find_model(ckpt, step=step).read(sharding.host_mesh(), None)
    else:
        params = checkpoint.open_params(ckpt, step=step)
    stored = str(np.dtype(getattr(params["embed"].dtype, "numpy_dtype", params["embed"].dtype)))
    imported_float16 = described["kind"] == "model" and described.get("source", {}).get("dtype") == "float16"
    written = dtype or ("float16" if imported_float16 and stored == "float32" else stored)
    with ProgressDisplay(enabled=progress) as display:
        export(
            params,
            described["config"],
            ckpt / "hf",
            out,
            dtype=written,
            max_shard_bytes=shard_bytes,
            overwrite=overwrite,
            progress=partial(display.update, "writing files"),
        )
    files = list(out.glob("*.safetensors"))
    return Converted(
        folder=out,
        parameters=described["config"].parameter_count,
        dtype=written,
        files=len(files),
        size_bytes=sum(file.stat().st_size for file in files),
    )


def export_adapters(
    run: str | Path,
    out: str | Path,
    *,
    step: int | None = None,
    base: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write a run's adapters alone as a PEFT folder.

    Args:
        run: A run folder with ``adapter.kind``, not started as a residual.
        out: PEFT folder to make.
        step: Which checkpoint; the latest when None.
        base: The base that ``adapter_config.json`` names, a hub name or a Hugging Face folder; the one the run
            started from, or that its model folder was imported from, when None.
        overwrite: Replace an existing PEFT folder.

    Returns:
        What was written.

    Raises:
        CheckpointError: The checkpoint is missing or torn.
        ConfigError: The run trained no adapters, or they do not stand alone.
        DataError: The folder exists.

    Examples:
        >>> export_adapters("runs/a", "adapters", base="org/model").note
    """
    run, out = Path(run), Path(out)
    checkpoint.check_free(out, overwrite, peft_folder.PEFT_FILES[0], peft_folder.PEFT_FILES)
    described = checkpoint.read_description(run)
    if "adapter" not in described:
        raise ConfigError(
            "there are no adapters to export",
            where=run,
            expected="a run with adapter.kind",
            remedy="leave out --peft",
        )
    partition = adapted.read_partition(described)
    base = base or adapted.public_base(described["adapter"]["base"]["reference"])
    peft_folder.check_alone(partition.adapter, run)
    trained = adapted.load_adapters(run, partition, sharding.host_mesh(), step)
    config = partition.architecture.config
    peft_folder.export_peft(trained, partition.adapter, config, out, base=base, overwrite=overwrite)
    notes = []
    if partition.adapter.quantized:
        notes.append(
            f"they were trained on a base in {partition.adapter.base}, whose rounding a full base does not share"
        )
    if base is None:
        notes.append(
            "adapter_config.json names no base, since none is known that transformers loads: export the base "
            "and give its folder with --base"
        )
    size = sum((out / name).stat().st_size for name in peft_folder.PEFT_FILES)
    parameters = adapters.count(trained)
    return Converted(folder=out, parameters=parameters, size_bytes=size, note="\n".join(notes) or None)


def parse_size(size: str | int) -> int:
    """Read a size such as ``5GB`` as bytes; KB, MB and GB are powers of 1000, as in transformers.

    Raises:
        ConfigError: It is not a size.

    Examples:
        >>> parse_size("1.5MB")
        1500000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", str(size).strip(), re.IGNORECASE)
    found = int(float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " ")) if match else 0
    if found <= 0:
        raise ConfigError(
            "max_shard_size is invalid", where="max_shard_size", found=size, expected="such as 5GB or 500MB"
        )
    return found


def _describe_turn_end(folder: Path) -> str | None:
    """Say where the configs lack the token by which the chat template ends an answer, or the tokenizer is broken."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        return None
    try:
        tokenizer = load_tokenizer(folder)
    except UserError as error:  # the weights are of use without it
        return f"the tokenizer cannot be used: {error}"
    end = tokenizer.turn_end_id
    missing = None if end is None else tokenizer.describe_missing_ends([end])
    return missing and (
        f"{missing}, with which the chat template ends an answer: `generate` and `serve` stop there all the same, "
        "other programs may not"
    )
