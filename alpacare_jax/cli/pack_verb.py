"""``alpacare pack``: instructions -> packed, sharded data set."""

import time
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from alpacare_jax.prompts import Template


def command(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="Instructions with outputs: JSON Lines or a JSON list.")
    ],
    tokenizer: Annotated[
        Path,
        Option(
            help="The model's tokenizer: a folder with tokenizer.json, or a sentencepiece tokenizer.model."
        ),
    ],
    seq_len: Annotated[int, Option(help="Length of a packed sequence, in tokens.", min=8)],
    out: Annotated[Path, Option(help="Folder to write; it must not exist, or be empty.")],
    template: Annotated[
        Template, Option(help="Prompt around each task: Alpaca's, or the model's own chat template.")
    ] = "alpaca",
    split: Annotated[str, Option(help="Name of the split.")] = "train",
    truncate: Annotated[
        bool,
        Option(
            "--truncate",
            help="Cut the response of a record longer than --seq-len, which then lacks its end token. "
            "Without this, such records are left out, counted and listed.",
        ),
    ] = False,
    no_pack: Annotated[
        bool, Option("--no-pack", help="One record a sequence, padded; for comparisons.")
    ] = False,
    shards: Annotated[
        int | None, Option(help="Number of files; one for each 32 MiB when not given.", min=1)
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the packed data set at --out.")] = False,
) -> None:
    """Turn instructions into packed sequences of token ids for training.

    Prompts are rendered and encoded, responses and their end tokens are marked as the only targets of the
    loss, and examples are packed into sequences of equal length by best fit. They are written as ArrayRecord
    shards of a TFDS data set, the manifest last.
    """
    from alpacare_jax.data.pack import pack
    from datagen.progress import ProgressDisplay

    started = time.perf_counter()
    given = {name: value for name, value in context.params.items() if name != "no_pack"}
    with ProgressDisplay() as display:
        manifest = pack(**given, share_rows=not no_pack, progress=display.update).manifest
    lines = [*manifest.summary(), ("time", f"{time.perf_counter() - started:.1f} s")]
    width = max(len(name) for name, _ in lines)
    typer.echo("\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), f"wrote {out}"]))
