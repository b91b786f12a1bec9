"""``alpacare export``: a model or a run becomes a Hugging Face folder."""

import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    ckpt: Annotated[
        Path, typer.Argument(help="Model folder (from import) or run folder (from train).", metavar="CKPT")
    ],
    out: Annotated[Path, typer.Option(help="Hugging Face folder to make.")],
    step: Annotated[
        int | None, typer.Option(help="Which checkpoint of a run, in optimiser steps. Default: its latest.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(
            help="Dtype of the weights. Default: as stored (float16 where an imported model came as that)."
        ),
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(help="Largest size of one file of weights: bytes, or with KB, MB or GB.")
    ] = "5GB",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing Hugging Face folder.")
    ] = False,
    peft: Annotated[
        bool,
        typer.Option(
            "--peft",
            help="Of a run that trained adapters, write them alone as a PEFT folder instead of merging them; "
            "not with adapter.start: residual.",
        ),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --peft: the base that adapter_config.json names, a hub name or a Hugging Face folder. "
            "Default: the one the run started from, or that its model folder was imported from.",
        ),
    ] = None,
) -> None:
    """Export an Orbax model or a run's checkpoint to a folder that transformers loads unchanged.

    Adapters are merged into their base, quantised where they were trained so; with --peft they stay beside it.
    """
    import numpy as np

    from alpacare_jax import checkpoint, convert, sharding
    from alpacare_jax.convert.export import EXPORT_FILES
    from alpacare_jax.distributed import leaves_to_first
    from alpacare_jax.errors import ConfigError
    from datagen.progress import ProgressDisplay

    if leaves_to_first(os.environ):
        typer.echo("process 0 does the export; this one has nothing to do", err=True)
        return
    if peft:
        typer.echo(_export_adapters(ckpt, out, step, overwrite, base))
        return
    if base is not None:
        raise ConfigError(
            "a base is only named in the folder of adapters", where="--base", found=base, remedy="add --peft"
        )
    started, shard_bytes = time.monotonic(), parse_size(max_shard_size)
    checkpoint.check_free(out, overwrite, "config.json", EXPORT_FILES)
    described = checkpoint.read_description(ckpt)
    if "adapter" in described:
        params = convert.find_model(ckpt, step=step).read(sharding.host_mesh(), None)
    else:
        params = checkpoint.open_params(ckpt, step=step)
    stored = str(np.dtype(getattr(params["embed"].dtype, "numpy_dtype", params["embed"].dtype)))
    imported_float16 = described["kind"] == "model" and described.get("source", {}).get("dtype") == "float16"
    written = dtype or ("float16" if imported_float16 and stored == "float32" else stored)
    config = described["config"]
    with ProgressDisplay() as display:
        convert.export(
            params,
            config,
            ckpt / "hf",
            out,
            dtype=written,
            max_shard_bytes=shard_bytes,
            overwrite=overwrite,
            progress=partial(display.update, "writing files"),
        )
    files = sorted(out.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    typer.echo(
        f"exported {config.parameter_count / 1e6:,.1f} million parameters as {written}: "
        f"{len(files)} file(s), {size / 1e6:,.1f} MB, {time.monotonic() - started:.1f} s"
    )
    typer.echo(f"wrote {out}")


def _export_adapters(run: Path, out: Path, step: int | None, overwrite: bool, base: str | None) -> str:
    """Write a run's adapters as a PEFT folder and say what was written."""
    from alpacare_jax import checkpoint, sharding
    from alpacare_jax.adapters import count
    from alpacare_jax.convert import adapted, peft_folder
    from alpacare_jax.errors import ConfigError

    checkpoint.check_free(out, overwrite, peft_folder.PEFT_FILES[0], peft_folder.PEFT_FILES)
    described = checkpoint.read_description(run)
    if "adapter" not in described:
        raise ConfigError(
            "there are no adapters to export",
            where=run,
            expected="a run with adapter.kind",
            remedy="leave out --peft",
        )
    division = adapted.read_division(described)
    base = base or adapted.public_base(described["adapter"]["base"]["reference"])
    peft_folder.check_alone(division.adapter, run)
    adapters = adapted.load_adapters(run, division, sharding.host_mesh(), step)
    config = division.architecture.config
    peft_folder.export_peft(adapters, division.adapter, config, out, base=base, overwrite=overwrite)
    size = sum((out / name).stat().st_size for name in peft_folder.PEFT_FILES)
    note = ""
    if division.adapter.quantized:
        note = f"\nthey were trained on a base in {division.adapter.base}, whose rounding a full base does not share"
    if base is None:
        note += (
            "\nadapter_config.json names no base, since none is known that transformers loads: export the base "
            "and give its folder with --base"
        )
    return f"exported {count(adapters):,} parameters of adapters, {size / 1e6:,.1f} MB\nwrote {out}{note}"


def parse_size(text: str) -> int:
    """Read a size such as ``5GB`` as bytes; KB, MB and GB are powers of 1000, as in transformers.

    Raises:
        ConfigError: It is not a size.
    """
    from alpacare_jax.errors import ConfigError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip(), re.IGNORECASE)
    size = (
        int(float(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2].upper()]) if match else 0
    )
    if size <= 0:
        raise ConfigError(
            "this is not a size", where="--max-shard-size", found=text, expected="such as 5GB or 500MB"
        )
    return size
