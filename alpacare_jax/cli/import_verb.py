"""``alpacare import``: a model of another format becomes a model folder."""

import os
import time
from functools import partial
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
    from alpacare_jax import checkpoint, convert, sharding
    from alpacare_jax.convert.opening import describe_source
    from alpacare_jax.distributed import leaves_to_first
    from datagen.progress import ProgressDisplay

    if leaves_to_first(os.environ):
        typer.echo("process 0 does the import; this one has nothing to do", err=True)
        return
    started = time.monotonic()
    checkpoint.check_free(out, overwrite)  # before minutes of work
    with convert.open_foreign(source) as foreign:
        with ProgressDisplay() as display:
            params = convert.load(
                foreign.source,
                foreign.config,
                mesh=sharding.host_mesh(),
                dtype=dtype,
                progress=partial(display.update, "reading weights"),
            )
        origin = describe_source(foreign, source)
        checkpoint.save_model(
            out, params, foreign.config, hf=foreign.assets, source=origin, overwrite=overwrite
        )
        stored = str(params["embed"].dtype)
    if note := describe_turn_end(out / "hf"):
        typer.echo(note, err=True)
    typer.echo(
        f"imported {foreign.name}: {foreign.config.parameter_count / 1e6:,.1f} million parameters in "
        f"{len(foreign.source.tensors)} tensors, as {stored}, {time.monotonic() - started:.1f} s"
    )
    typer.echo(f"wrote {out}")


def describe_turn_end(folder: Path) -> str | None:
    """Say where the configs lack the token by which the chat template ends an answer, or the tokenizer is broken.

    Args:
        folder: Folder of config, tokenizer and chat template.
    """
    from alpacare_jax.errors import UserError
    from alpacare_jax.tokenizer import load_tokenizer

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
