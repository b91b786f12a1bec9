"""``alpacare pack``: instructions -> packed, sharded data set."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpacare_jax.prompts import Template

if TYPE_CHECKING:
    from alpacare_jax.data.manifest import Manifest


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
    from alpacare_jax.data.pack import PackConfig, check_source, pack
    from alpacare_jax.tokenizer import load_tokenizer

    config = PackConfig(seq_len, template, split, truncate, not no_pack, shards)
    check_source(source)  # before the tokenizer is read
    started = time.perf_counter()
    loaded = load_tokenizer(tokenizer)
    with _shown_progress() as progress:
        manifest = pack(source, out, loaded, config, overwrite=overwrite, progress=progress)
    if missing := loaded.describe_missing_ends(manifest.end_ids):
        typer.echo(
            f"{missing}, with which the answers of this data end: a run on it and its export will name both.",
            err=True,
        )
    if overrun := _describe_overrun(tokenizer, min(seq_len, manifest.statistics.longest_example)):
        typer.echo(overrun, err=True)
    _show(manifest, out, time.perf_counter() - started)


def _describe_overrun(tokenizer: Path, longest: int) -> str | None:
    """Say that examples go beyond the positions of the model whose folder the tokenizer lies in, if that is known."""
    from alpacare_jax.data.manifest import describe_overrun
    from datagen.decoding import read_json_object

    folder = tokenizer if tokenizer.is_dir() else tokenizer.parent
    file = next(
        (each for each in (folder / "config.json", folder / "hf" / "config.json") if each.is_file()), None
    )
    known = None if file is None else read_json_object(file).get("max_position_embeddings")
    if not isinstance(known, int):
        return None
    overrun = describe_overrun(longest, known)
    return overrun and f"{file}: {overrun}"


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


def _show(manifest: "Manifest", out: Path, seconds: float) -> None:
    found = manifest.statistics
    lines = [
        ("records read", f"{found.records:,}"),
        ("examples packed", f"{found.examples:,}"),
        ("left out, longer than a row", _with_ids(found.left_out, manifest.left_out_ids)),
        ("truncated, without end token", _with_ids(found.truncated, manifest.truncated_ids)),
        ("longest example", f"{found.longest_example:,} tokens"),
        (
            "rows",
            f"{found.rows:,} of {manifest.row_length:,} tokens ({manifest.packing}, {manifest.template})",
        ),
        ("tokens", f"{found.tokens:,}"),
        ("answers end with", _ends(manifest)),
        ("supervised tokens", f"{found.supervised_tokens:,} ({found.supervised_tokens / found.tokens:.1%})"),
        ("fill", f"{found.fill:.2%} of {found.slots:,} slots"),
        ("shards", f"{len(manifest.shards)}, {sum(s['bytes'] for s in manifest.shards) / 2**20:.1f} MiB"),
        (
            "tokenizer",
            f"{manifest.tokenizer['fingerprint'][:16]}, vocabulary {manifest.tokenizer['vocab_size']:,}",
        ),
        ("time", f"{seconds:.1f} s"),
    ]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name:<{width}}  {value}")
    if found.left_out > found.prompt_too_long:
        typer.echo(
            "Records longer than a row were left out; a larger --seq-len or --truncate keeps them.", err=True
        )
    if unused := manifest.source.get("unused_fields"):
        fields = ", ".join(f"{name} ({count:,} records)" for name, count in unused.items())
        typer.echo(f"Fields that no example is made from: {fields}", err=True)
    typer.echo(f"wrote {out}")


def _ends(manifest: "Manifest") -> str:
    named = zip(manifest.tokenizer["end_tokens"], manifest.end_ids, strict=True)
    return ", ".join(f"{text} (id {index})" for text, index in named) or "nothing, all are truncated"


def _with_ids(count: int, ids: list[str]) -> str:
    if not count:
        return "0"
    return f"{count:,} ({', '.join(ids[:5])}{', ...' if count > 5 else ''})"
