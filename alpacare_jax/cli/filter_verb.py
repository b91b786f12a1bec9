"""``alpacare filter``: the exact ROUGE-L near-duplicate filter on its own."""

import contextlib
import enum
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datagen.cleaning import Cleaner
    from datagen.dedup import Near


class Policy(enum.StrEnum):
    """Which members of a group of near-duplicates go."""

    KEEP_FIRST = "keep-first"
    ALL_PAIRS = "all-pairs"


class Privacy(enum.StrEnum):
    """What becomes of personal identifiers."""

    OFF = "off"
    REPORT = "report"
    DROP = "drop"
    MASK = "mask"


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
    evaluation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:FIELD,...]",
            help="Evaluation set that must not leak: rows whose task or answer shares 13 tokens in a row with one of "
            "its items, or paraphrases it, are dropped. Repeat for several. Fields with other names than question, "
            "options and the like are named behind the file, the question first.",
        ),
    ] = None,
    privacy: Annotated[
        Privacy,
        typer.Option(
            help="What becomes of personal identifiers in instruction, input and output: nothing (off), a line each "
            "in --identifiers (report), the row is dropped, or [NAME], [DATE]... take their places (mask)."
        ),
    ] = Privacy.OFF,
    privacy_model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="spaCy model, such as en_core_web_lg, that looks for names and places beside the patterns; needs "
            "the extra 'privacy'.",
            show_default="patterns alone",
        ),
    ] = "",
    identifiers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File for kind and place of every identifier found (JSON Lines); needs --privacy.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace KEPT, REJ and the file of --identifiers if they exist."),
    ] = False,
) -> None:
    """Drop near-duplicates: keep the first of each group, compare instructions by exact ROUGE-L F1.

    With --evaluation and --privacy, rows that overlap with evaluation sets or
    hold personal identifiers go first.
    """
    from datagen.records import read_objects, write_objects

    _check_identifiers(privacy, identifiers)
    outputs = [out, rejected, *([identifiers] if identifiers else [])]
    _check_outputs(outputs, _inputs(source, against, evaluation), overwrite)
    cleaner = _cleaner(evaluation or [], privacy, privacy_model)
    rows, unsafe = _clean(
        cleaner, [(where, row, _instruction(row, where)) for where, row in read_objects(source)]
    )
    places: list[str] = []
    known: list[str] = []
    for where, text in _known(against or [], seeds):
        places.append(where)
        known.append(text)
    judge = _keep_first if policy is Policy.KEEP_FIRST else _all_pairs
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    fates = iter(
        judge([row for row, reason in zip(rows, unsafe, strict=True) if not reason], places, known, threshold)
    )
    for (_, row, _), unfit in zip(rows, unsafe, strict=True):
        reason = unfit or _near_duplicate(next(fates))
        if reason is None:
            kept.append(row)
        else:
            reasons[reason["reason"]] += 1
            dropped.append(_with_reason(row, reason))
    write_objects(out, kept)
    write_objects(rejected, dropped)
    if identifiers is not None:
        write_objects(identifiers, cleaner.places)
    _tell(len(rows), len(known), len(kept), reasons, out, rejected, threshold)
    _tell_overlaps(cleaner, dropped)
    if privacy is not Privacy.OFF:
        _tell_identifiers(cleaner, identifiers)


def _tell(
    rows: int, known: int, kept: int, reasons: "Counter[str]", out: Path, rejected: Path, threshold: float
) -> None:
    others = "".join(
        f", {many:,} {reason}" for reason, many in sorted(reasons.items()) if reason != "near-duplicate"
    )
    typer.echo(
        f"{_counted(rows, 'row')}, compared with {_counted(known, 'known text')} and with each other: "
        f"{kept:,} kept in {out}, {_counted(reasons['near-duplicate'], 'near-duplicate')} "
        f"(ROUGE-L F1 > {threshold:g})"
        f"{others} in {rejected}"
    )


def _tell_overlaps(cleaner: "Cleaner", dropped: Sequence[dict[str, Any]]) -> None:
    """Print for every evaluation file how many rows it cost, also where that is none."""
    rejections = [row["rejected"] for row in dropped]
    for file in cleaner.benchmarks.described() if cleaner.benchmarks else ():
        many = sum(rejection.get("evaluation_file") == file["file"] for rejection in rejections)
        typer.echo(
            f"overlap with {file['file']} ({_counted(file['items'], 'item')}): {_counted(many, 'row')}"
        )


def _counted(many: int, what: str) -> str:
    return f"{many:,} {what}{'' if many == 1 else 's'}"


def _tell_identifiers(cleaner: "Cleaner", identifiers: Path | None) -> None:
    kinds = Counter(place["kind"] for place in cleaner.places)
    listed = ", ".join(f"{kind} {many}" for kind, many in kinds.most_common()) or "none"
    typer.echo(f"personal identifiers: {listed}" + (f"; places in {identifiers}" if identifiers else ""))


def _cleaner(evaluation: Sequence[str], privacy: Privacy, privacy_model: str) -> "Cleaner":
    from datagen.cleaning import Cleaner
    from datagen.contamination import Benchmarks
    from datagen.safety import detector

    benchmarks = Benchmarks(evaluation) if evaluation else None
    model = "" if privacy is Privacy.OFF else privacy_model
    return Cleaner(benchmarks, privacy.value, detector(model))


def _clean(cleaner: "Cleaner", rows: "list[_Row]") -> "tuple[list[_Row], list[dict[str, Any] | None]]":
    """Return the rows, masked where that is asked for, and why each of them must go, or None."""
    if cleaner.benchmarks is None and cleaner.privacy == Privacy.OFF:
        return rows, [None] * len(rows)
    cleaned: list[_Row] = []
    reasons: list[dict[str, Any] | None] = []
    with _progress(len(rows), "checked") as advance:
        for where, row, _ in rows:
            row, reason = cleaner.clean(row, where)
            cleaned.append((where, row, row["instruction"]))
            reasons.append(reason)
            advance()
    return cleaned, reasons


PROGRESS_EVERY_S = 10.0

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


def _near_duplicate(fate: _Fate) -> dict[str, Any] | None:
    if fate is None:
        return None
    near, place = fate
    return {
        "reason": "near-duplicate",
        "nearest": near.text,
        "nearest_at": place,
        "score": round(near.score, 4),
    }


def _with_reason(row: dict[str, Any], reason: dict[str, Any]) -> dict[str, Any]:
    """Return the row with why it was dropped; an older reason moves to ``rejected_before``."""
    before = {"rejected_before": row["rejected"]} if "rejected" in row else {}
    return {**row, **before, "rejected": reason}


def _inputs(source: Path, against: list[Path] | None, evaluation: list[str] | None) -> list[Path]:
    from datagen.contamination.evaluation_files import split_fields

    return [source, *(against or []), *(split_fields(spec)[0] for spec in evaluation or [])]


def _check_identifiers(privacy: Privacy, identifiers: Path | None) -> None:
    from datagen.errors import ConfigError

    if identifiers is not None and privacy is Privacy.OFF:
        raise ConfigError(
            "--identifiers has nothing to list",
            found="--privacy off",
            remedy="add --privacy report, drop or mask",
        )
    if identifiers is None and privacy is Privacy.REPORT:
        raise ConfigError("--privacy report has no file to write to", remedy="add --identifiers FILE")


def _check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], overwrite: bool) -> None:
    from datagen.errors import ConfigError, DataError

    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ConfigError(
            "two outputs name the same file", found=", ".join(map(str, outputs)), expected="a file for each"
        )
    for path in outputs:
        if any(path.resolve() == other.resolve() for other in inputs):
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
def _progress(total: int, doing: str = "compared") -> Iterator[Callable[[], None]]:
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
