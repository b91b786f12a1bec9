"""``alpacare export``: a model or a run becomes a Hugging Face folder."""

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option


def command(
    ckpt: Annotated[
        Path, typer.Argument(help="Model folder (from import) or run folder (from train).", metavar="CKPT")
    ],
    out: Annotated[Path, Option(help="Hugging Face folder to make.")],
    step: Annotated[
        int | None, Option(help="Which checkpoint of a run, in optimiser steps. Default: its latest.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Option(
            help="Dtype of the weights. Default: as stored (float16 where an imported model came as that)."
        ),
    ] = None,
    max_shard_size: Annotated[
        str, Option(help="Largest size of one file of weights: bytes, or with KB, MB or GB.")
    ] = "5GB",
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace an existing Hugging Face folder.")
    ] = False,
    peft: Annotated[
        bool,
        Option(
            "--peft",
            help="Of a run that trained adapters, write only them, as a PEFT folder instead of merging them; "
            "not with adapter.start: residual.",
        ),
    ] = False,
    base: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="With --peft: the base that adapter_config.json names, a hub name or a Hugging Face folder. "
            "Default: the one the run started from, or that its model folder was imported from.",
        ),
    ] = None,
) -> None:
    """Export an Orbax model or a run's checkpoint to a folder that transformers loads unchanged.

    Adapters are merged into their base, quantised where they were trained so; with --peft they stay beside it.
    """
    from alpacare_jax.convert.folders import export_adapters, export_model
    from alpacare_jax.distributed import leaves_to_first
    from alpacare_jax.errors import ConfigError

    if leaves_to_first(os.environ):
        typer.echo("process 0 does the export; this one has nothing to do", err=True)
        return
    if base is not None and not peft:
        raise ConfigError(
            "a base is only named in the folder of adapters", where="--base", found=base, remedy="add --peft"
        )
    started = time.monotonic()
    if peft:
        made = export_adapters(ckpt, out, step=step, base=base, overwrite=overwrite)
        said = f"exported {made.parameters:,} parameters of adapters"
    else:
        size = max_shard_size
        made = export_model(ckpt, out, step=step, dtype=dtype, max_shard_size=size, overwrite=overwrite)
        said = (
            f"exported {made.parameters / 1e6:,.1f} million parameters as {made.dtype}, {made.files} file(s)"
        )
    typer.echo(f"{said}, {made.size_bytes / 1e6:,.1f} MB, {time.monotonic() - started:.1f} s")
    typer.echo("\n".join([f"wrote {out}", *filter(None, [made.note])]))
