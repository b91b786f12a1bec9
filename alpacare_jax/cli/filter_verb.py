"""``alpacare filter``: the exact ROUGE-L near-duplicate filter on its own."""

import enum
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from alpacare_jax.cli.filtering import Judged
    from datagen.cleaning import Cleaner


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


_Source = Annotated[
    Path,
    typer.Argument(metavar="IN.jsonl", help="Rows with a field 'instruction': JSON Lines or a JSON list."),
]
_Out = Annotated[Path, typer.Option("--out", metavar="KEPT", help="File for the kept rows (JSON Lines).")]
_Rejected = Annotated[
    Path,
    typer.Option(
        "--rejected",
        metavar="REJ",
        help="File for the dropped rows; 'rejected' holds reason, nearest text, its place and the score.",
    ),
]
_Threshold = Annotated[
    float,
    typer.Option(help="ROUGE-L F1, 0 to 1. A row above it is dropped; a row exactly at it is kept."),
]
_Policy = Annotated[
    Policy,
    typer.Option(
        help="keep-first compares a row with those kept before it. all-pairs compares it with all others, as the "
        "published AlpaCare filter does: both members of a pair vanish; for comparison with the paper."
    ),
]
_Against = Annotated[
    list[Path] | None,
    typer.Option(
        help="File of rows that are kept already, such as an earlier KEPT: they are compared with, not judged "
        "again. Repeat for several files."
    ),
]
_Seeds = Annotated[
    bool, typer.Option("--seeds", help="Also compare with the seed tasks that come with the package.")
]
_Evaluation = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE[:FIELD,...]",
        help="Evaluation set that must not leak: rows whose task or answer shares 13 tokens in a row with one of "
        "its items, or paraphrases it, are dropped. Repeat for several. Fields with other names than question, "
        "options and the like are named behind the file, the question first.",
    ),
]
_Privacy = Annotated[
    Privacy,
    typer.Option(
        help="What becomes of personal identifiers in instruction, input and output: nothing (off), a line each "
        "in --identifiers (report), the row is dropped, or [NAME], [DATE]... take their places (mask)."
    ),
]
_PrivacyModel = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="spaCy model, such as en_core_web_lg, that looks for names and places beside the patterns; needs "
        "the extra 'privacy'.",
        show_default="patterns alone",
    ),
]
_Identifiers = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File for kind and place of every identifier found (JSON Lines); needs --privacy.",
    ),
]
_Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace KEPT, REJ and the file of --identifiers if they exist."),
]


def command(
    source: _Source,
    out: _Out,
    rejected: _Rejected,
    threshold: _Threshold = 0.7,
    policy: _Policy = Policy.KEEP_FIRST,
    against: _Against = None,
    seeds: _Seeds = False,
    evaluation: _Evaluation = None,
    privacy: _Privacy = Privacy.OFF,
    privacy_model: _PrivacyModel = "",
    identifiers: _Identifiers = None,
    overwrite: _Overwrite = False,
) -> None:
    """Drop near-duplicates: keep the first of each group, compare instructions by exact ROUGE-L F1.

    With --evaluation and --privacy, rows that overlap with evaluation sets or
    hold personal identifiers go first.
    """
    from alpacare_jax.cli import filtering
    from datagen.records import write_objects

    _check_identifiers(privacy, identifiers)
    outputs = [out, rejected, *([identifiers] if identifiers else [])]
    _check_outputs(outputs, _inputs(source, against, evaluation), overwrite)
    cleaner = _cleaner(evaluation or [], privacy, privacy_model)
    rows, unfit = filtering.clean(cleaner, list(filtering.read_rows(source)))
    known = list(filtering.read_known(against or [], seeds))
    judged = filtering.judge(rows, unfit, known, threshold, all_pairs=policy is Policy.ALL_PAIRS)
    write_objects(out, judged.kept)
    write_objects(rejected, judged.dropped)
    if identifiers is not None:
        write_objects(identifiers, cleaner.places)
    _tell(judged, len(known), out, rejected, threshold)
    _tell_overlaps(cleaner, judged.dropped)
    if privacy is not Privacy.OFF:
        _tell_identifiers(cleaner, identifiers)


def _tell(judged: "Judged", known: int, out: Path, rejected: Path, threshold: float) -> None:
    from alpacare_jax.cli.filtering import NEAR_DUPLICATE

    reasons = judged.reasons
    near = reasons.pop(NEAR_DUPLICATE, 0)
    others = "".join(f", {many:,} {reason}" for reason, many in sorted(reasons.items()))
    typer.echo(
        f"{_counted(len(judged.kept) + len(judged.dropped), 'row')}, "
        f"compared with {_counted(known, 'known text')} and with each other: "
        f"{len(judged.kept):,} kept in {out}, {_counted(near, NEAR_DUPLICATE)} (ROUGE-L F1 > {threshold:g})"
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
