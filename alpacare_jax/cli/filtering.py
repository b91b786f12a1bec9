"""Judging rows for ``alpacare filter``: cleaned, compared by exact ROUGE-L, kept or dropped with a reason."""

import contextlib
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from datagen.errors import DataError
from datagen.records import read_objects

if TYPE_CHECKING:
    from datagen.cleaning import Cleaner
    from datagen.dedup import Near

PROGRESS_EVERY_S = 10.0

NEAR_DUPLICATE = "near-duplicate"

Reason = dict[str, Any]
"""Why a row must go, as it stands in the row's field "rejected"."""


class Row(NamedTuple):
    """A row of a file, where it stands, and its instruction."""

    where: str
    values: dict[str, Any]
    instruction: str


class Known(NamedTuple):
    """A text that rows are compared with and that is not judged, and where it stands."""

    where: str
    instruction: str


@dataclasses.dataclass(frozen=True)
class Judged:
    """The rows that stay and those that go, each with its reason in the field "rejected"."""

    kept: list[dict[str, Any]]
    dropped: list[dict[str, Any]]

    @property
    def reasons(self) -> "Counter[str]":
        """How many rows went for each reason."""
        return Counter(row["rejected"]["reason"] for row in self.dropped)


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file.

    Raises:
        DataError: The file is broken, or a row has no instruction.
    """
    for where, values in read_objects(path):
        yield Row(where, values, _instruction(values, where))


def _instruction(row: dict[str, Any], where: str) -> str:
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


def read_known(files: Iterable[Path], seeds: bool) -> Iterator[Known]:
    """Yield what rows are compared with beside themselves.

    Args:
        files: Files of rows that are kept already.
        seeds: Whether the seed tasks that come with the package count too.

    Raises:
        DataError: A file is broken, or a row has no instruction.
    """
    from datagen.seeds import SHIPPED, load_seeds

    if seeds:
        for number, seed in enumerate(load_seeds(), start=1):
            yield Known(f"{SHIPPED}:{number}", seed.instruction)
    for path in files:
        for row in read_rows(path):
            yield Known(row.where, row.instruction)


def clean(cleaner: "Cleaner", rows: Sequence[Row]) -> tuple[Sequence[Row], list[Reason | None]]:
    """Return the rows, masked where that is asked for, and why each of them must go, or None."""
    if cleaner.benchmarks is None and cleaner.privacy == "off":
        return rows, [None] * len(rows)
    cleaned: list[Row] = []
    reasons: list[Reason | None] = []
    with _progress(len(rows), "checked") as advance:
        for row in rows:
            values, reason = cleaner.clean(row.values, row.where)
            cleaned.append(Row(row.where, values, values["instruction"]))
            reasons.append(reason)
            advance()
    return cleaned, reasons


def judge(
    rows: Sequence[Row],
    unfit: Sequence[Reason | None],
    known: Sequence[Known],
    threshold: float,
    *,
    all_pairs: bool,
) -> Judged:
    """Compare the rows that are fit, and sort all of them by what becomes of them.

    Args:
        rows: All rows, in order.
        unfit: Why each of them must go whatever the others say, or None.
        known: What they are compared with beside themselves.
        threshold: ROUGE-L F1 in [0, 1] above which a row is a near-duplicate.
        all_pairs: Compare each with all others, not only with those kept before it.
    """
    compare = _all_pairs if all_pairs else _keep_first
    fit = [row for row, reason in zip(rows, unfit, strict=True) if reason is None]
    near = iter(compare(fit, known, threshold))
    judged = Judged([], [])
    for row, reason in zip(rows, unfit, strict=True):
        reason = reason or next(near)
        if reason is None:
            judged.kept.append(row.values)
        else:
            judged.dropped.append(_with_reason(row.values, reason))
    return judged


def _keep_first(rows: Sequence[Row], known: Sequence[Known], threshold: float) -> list[Reason | None]:
    """Compare each row with the known texts and with the rows kept before it."""
    from datagen.dedup import RougeFilter

    pool = RougeFilter((each.instruction for each in known), threshold)
    places = [each.where for each in known]
    reasons: list[Reason | None] = []
    with _progress(len(rows), "compared") as advance:
        for row in rows:
            near = pool.offer(row.instruction)
            if near is None:
                places.append(row.where)
            reasons.append(_near_duplicate(near, places))
            advance()
    return reasons


def _all_pairs(rows: Sequence[Row], known: Sequence[Known], threshold: float) -> list[Reason | None]:
    """Compare each row with the known texts and with all other rows."""
    from datagen.dedup import all_pairs

    places = [*(each.where for each in known), *(row.where for row in rows)]
    with _progress(len(rows), "compared") as advance:

        def texts() -> Iterator[str]:
            for row in rows:
                yield row.instruction
                advance()

        nearest = all_pairs(texts(), (each.instruction for each in known), threshold)
    return [_near_duplicate(near, places) for near in nearest]


def _near_duplicate(near: "Near | None", places: Sequence[str]) -> Reason | None:
    if near is None:
        return None
    return {
        "reason": NEAR_DUPLICATE,
        "nearest": near.text,
        "nearest_at": places[near.index],
        "score": round(near.score, 4),
    }


def _with_reason(values: dict[str, Any], reason: Reason) -> dict[str, Any]:
    """Return the row with why it was dropped; an older reason moves to ``rejected_before``."""
    before = {"rejected_before": values["rejected"]} if "rejected" in values else {}
    return {**values, **before, "rejected": reason}


@contextlib.contextmanager
def _progress(total: int, doing: str) -> Iterator[Callable[[], None]]:
    """Yield a function to call once a row: a bar on a terminal, a line every ten seconds elsewhere."""
    every = 0.1 if sys.stderr.isatty() else PROGRESS_EVERY_S
    done, said = 0, time.monotonic()
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            bar = stack.enter_context(Progress(console=Console(stderr=True)))
            task = bar.add_task(f"rows {doing}", total=total)

            def show() -> None:
                bar.update(task, completed=done)
        else:

            def show() -> None:
                typer.echo(f"{done:,} of {total:,} rows {doing}", err=True)

        def advance() -> None:
            nonlocal done, said
            done += 1
            now = time.monotonic()
            if now - said >= every or (done == total and sys.stderr.isatty()):
                said = now
                show()

        yield advance
