"""``alpacare import``: a model of another format becomes a model folder."""

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face folder (config.json with model.safetensors, or its index and shards), "
            "a .gguf file, or a hub name such as org/model."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to make: alpacare.json, params/ (Orbax), hf/.")],
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(
            help="Dtype of the stored parameters. Default: the narrower that keeps every bit of the source."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model folder.")] = False,
) -> None:
    """Import a LLaMA from Hugging Face or GGUF into an Orbax model folder."""
    from alpacare_jax.convert.folders import import_model
    from alpacare_jax.distributed import leaves_to_first

    if leaves_to_first(os.environ):
        typer.echo("process 0 does the import; this one has nothing to do", err=True)
        return
    started = time.monotonic()
    made = import_model(source, out, dtype=dtype, overwrite=overwrite)
    if made.note:
        typer.echo(made.note, err=True)
    typer.echo(
        f"imported {made.name}: {made.parameters / 1e6:,.1f} million parameters in "
        f"{made.tensors} tensors, as {made.dtype}, {time.monotonic() - started:.1f} s"
    )
    typer.echo(f"wrote {out}")
