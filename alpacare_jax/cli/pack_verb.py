"""``alpacare pack``: instructions -> packed, sharded data set."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from alpacare_jax.prompts import Template


def command(
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="Instructions with outputs: JSON Lines or a JSON list.")
    ],
    tokenizer: Annotated[
        Path,
        typer.Option(
            help="The model's tokenizer: a folder with tokenizer.json, or a sentencepiece tokenizer.model."
        ),
    ],
    seq_len: Annotated[int, typer.Option(help="Length of a row, in tokens.", min=8)],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist, or be empty.")],
    template: Annotated[
        Template, typer.Option(help="Prompt around each task: Alpaca's, or the model's own chat template.")
    ] = "alpaca",
    split: Annotated[str, typer.Option(help="Name of the split.")] = "train",
    truncate: Annotated[
        bool,
        typer.Option(
            "--truncate",
            help="Cut the response of a record longer than a row, which then lacks its end token. "
            "Without this, such records are left out, counted and listed.",
        ),
    ] = False,
    no_pack: Annotated[
        bool, typer.Option("--no-pack", help="One record a row, padded; for comparisons.")
    ] = False,
    shards: Annotated[
        int | None, typer.Option(help="Number of files; one for each 32 MiB of rows when not given.", min=1)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the packed data set at --out.")
    ] = False,
) -> None:
    """Turn instructions into rows of token ids for training.

    Prompts are rendered and encoded, responses and their end tokens are marked as the only targets of the
    loss, and examples are packed into rows of equal length by best fit. The rows are written as ArrayRecord
    shards of a TFDS data set, the manifest last.
    """
    from alpacare_jax import pack

    started = time.perf_counter()
    layout = {"template": template, "split": split, "truncate": truncate, "share_rows": not no_pack}
    with _shown_progress() as progress:
        writing = {"out": out, "shards": shards, "overwrite": overwrite, "progress": progress}
        manifest = pack(source, tokenizer, seq_len=seq_len, **layout, **writing).manifest
    lines = [*manifest.summary(), ("time", f"{time.perf_counter() - started:.1f} s")]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name:<{width}}  {value}")
    typer.echo(f"wrote {out}")


@contextlib.contextmanager
def _shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a progress callback: bars on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        said = 0.0

        def say(stage: str, done: int, total: int) -> None:
            nonlocal said
            if done == total or time.monotonic() - said > 10:
                said = time.monotonic()
                typer.echo(f"{stage} {done:,}/{total:,}", err=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # No refreshing thread: TFDS swaps the import machinery while it loads, and rich imports lazily.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, refresh=True)

        yield advance
