"""``alpacare filter``: the exact ROUGE-L near-duplicate filter on its own."""

import contextlib
import enum
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datagen.dedup import Near


class Policy(enum.StrEnum):
    """Which members of a group of near-duplicates go."""

    KEEP_FIRST = "keep-first"
    ALL_PAIRS = "all-pairs"


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN.jsonl", help="Rows with a field 'instruction': JSON Lines or a JSON list."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="KEPT", help="File for the kept rows (JSON Lines).")],
    rejected: Annotated[
        Path,
        typer.Option(
            "--rejected",
            metavar="REJ",
            help="File for the dropped rows; 'rejected' holds reason, nearest text, its place and the score.",
        ),
    ],
    threshold: Annotated[
        float,
        typer.Option(help="ROUGE-L F1, 0 to 1. A row above it is dropped; a row exactly at it is kept."),
    ] = 0.7,
    policy: Annotated[
        Policy,
        typer.Option(
            help="keep-first compares a row with those kept before it. all-pairs compares it with all others, as the "
            "published AlpaCare filter does: both members of a pair vanish; for comparison with the paper."
        ),
    ] = Policy.KEEP_FIRST,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of rows that are kept already, such as an earlier KEPT: they are compared with, not judged "
            "again. Repeat for several files."
        ),
    ] = None,
    seeds: Annotated[
        bool, typer.Option("--seeds", help="Also compare with the seed tasks that come with the package.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace KEPT and REJ if they exist.")
    ] = False,
) -> None:
    """Drop near-duplicates: keep the first of each group, compare instructions by exact ROUGE-L F1."""
    from datagen.records import read_objects, write_objects

    _check_outputs(source, out, rejected, against or [], overwrite)
    rows = [(where, row, _instruction(row, where)) for where, row in read_objects(source)]
    places: list[str] = []
    known: list[str] = []
    for where, text in _known(against or [], seeds):
        places.append(where)
        known.append(text)
    judge = _keep_first if policy is Policy.KEEP_FIRST else _all_pairs
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for (_, row, _), fate in zip(rows, judge(rows, places, known, threshold), strict=True):
        if fate is None:
            kept.append(row)
        else:
            dropped.append(_with_reason(row, *fate))
    write_objects(out, kept)
    write_objects(rejected, dropped)
    typer.echo(
        f"{len(rows)} rows, compared with {len(known)} known texts and with each other: "
        f"{len(kept)} kept in {out}, {len(dropped)} near-duplicate(s) (ROUGE-L F1 > {threshold:g}) in {rejected}"
    )


_Row = tuple[str, dict[str, Any], str]
"""Where a row stands, the row, its instruction."""

_Fate = tuple["Near", str] | None
"""None for a row that is kept, else the nearest text and where it stands."""


def _keep_first(rows: Sequence[_Row], places: list[str], known: list[str], threshold: float) -> list[_Fate]:
    """Compare each row with the known texts and with the rows kept before it."""
    from datagen.dedup import RougeFilter

    pool, places = RougeFilter(known, threshold), places.copy()
    fates: list[_Fate] = []
    with _progress(len(rows)) as advance:
        for where, _, instruction in rows:
            near = pool.offer(instruction)
            if near is None:
                places.append(where)
            fates.append(None if near is None else (near, places[near.index]))
            advance()
    return fates


def _all_pairs(rows: Sequence[_Row], places: list[str], known: list[str], threshold: float) -> list[_Fate]:
    """Compare each row with the known texts and with all other rows."""
    from datagen.dedup import all_pairs

    places = [*places, *(where for where, _, _ in rows)]
    with _progress(len(rows)) as advance:

        def texts() -> Iterator[str]:
            for _, _, instruction in rows:
                yield instruction
                advance()

        nearest = all_pairs(texts(), known, threshold)
    return [None if near is None else (near, places[near.index]) for near in nearest]


def _with_reason(row: dict[str, Any], near: "Near", place: str) -> dict[str, Any]:
    """Return the row with why it was dropped; an older reason moves to ``rejected_before``."""
    reason = {"reason": "near-duplicate", "nearest": near.text, "nearest_at": place, "score": near.score}
    before = {"rejected_before": row["rejected"]} if "rejected" in row else {}
    return {**row, **before, "rejected": reason}


def _check_outputs(source: Path, out: Path, rejected: Path, against: list[Path], overwrite: bool) -> None:
    from datagen.errors import ConfigError, DataError

    if out.resolve() == rejected.resolve():
        raise ConfigError("--out and --rejected name the same file", found=out, expected="two files")
    for path in (out, rejected):
        if any(path.resolve() == other.resolve() for other in (source, *against)):
            raise ConfigError("an output would replace an input", found=path, remedy="name another file")
        if path.is_dir():
            raise DataError("the output is a folder", where=path, expected="the name of a file")
        if path.exists() and path.stat().st_size and not overwrite:
            raise DataError(
                "the output exists already", where=path, remedy="name another file or give --overwrite"
            )


def _instruction(row: dict[str, Any], where: str) -> str:
    from datagen.errors import DataError

    value = row.get("instruction")
    if not isinstance(value, str):
        raise DataError(
            "the row has no instruction",
            where=where,
            found="no field 'instruction'"
            if value is None
            else f"'instruction' of type {type(value).__name__}",
            expected="a text in the field 'instruction'",
        )
    return value


def _known(against: list[Path], seeds: bool) -> Iterator[tuple[str, str]]:
    from datagen.records import read_objects
    from datagen.seeds import SHIPPED, load_seeds

    if seeds:
        for number, seed in enumerate(load_seeds(), start=1):
            yield f"{SHIPPED}:{number}", seed.instruction
    for path in against:
        for where, row in read_objects(path):
            yield where, _instruction(row, where)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call once a row: a bar on a terminal, a line every tenth of the way elsewhere."""
    step, done = max(1, total // (100 if sys.stderr.isatty() else 10)), 0
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            bar = stack.enter_context(Progress(console=Console(stderr=True)))
            task = bar.add_task("rows compared", total=total)

            def show() -> None:
                bar.update(task, completed=done)
        else:

            def show() -> None:
                typer.echo(f"{done} of {total} rows compared", err=True)

        def advance() -> None:
            nonlocal done
            done += 1
            if done % step == 0 or done == total:
                show()

        yield advance
