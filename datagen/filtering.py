"""The filter of any instruction dataset: overlap with evaluation sets, personal identifiers, near-duplicates."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from datagen.configuration import Range, check
from datagen.contamination import Benchmarks
from datagen.contamination.evaluation_files import split_fields
from datagen.dedup import Near, RougeFilter, all_pairs
from datagen.errors import ConfigError, DataError
from datagen.files import refuse_existing
from datagen.privacy import Policy as Privacy
from datagen.progress import ProgressDisplay
from datagen.records import Record, read_objects, write_objects
from datagen.safety import Objection, SafetyCheck, detector
from datagen.seeds import SHIPPED, load_seeds

Rows = str | Path | Iterable[Mapping[str, Any] | Record]
"""A file of rows (JSON Lines or a JSON list), or the rows themselves."""

Policy = Literal["keep-first", "all-pairs"]
NEAR_DUPLICATE = "near-duplicate"
_TEXT_FIELDS = ("instruction", "input", "output", "response")
_ROWS_PER_UPDATE = 64


@dataclasses.dataclass(frozen=True)
class FilteredRows:
    """What the filter kept and rejected.

    Attributes:
        kept: Rows that stay, masked if that is the policy.
        rejected: Rows that go; their field "rejected" holds reason and details.
        identifiers: Row, kind and place of every personal identifier found; None where none were looked for.
        evaluation: Each evaluation file with its number of items and of rows rejected because of it.
        compared_with: How many texts were given to compare with.
    """

    kept: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    identifiers: list[dict[str, Any]] | None
    evaluation: list[dict[str, Any]]
    compared_with: int

    @property
    def reasons(self) -> Counter[str]:
        """How many rows went for each reason."""
        return Counter(row["rejected"]["reason"] for row in self.rejected)

    def summary(self) -> str:
        """Say how many rows were kept and rejected, what each evaluation file cost, and what identifiers there are."""
        rows, known = len(self.kept) + len(self.rejected), self.compared_with
        reasons = "".join(f", {many:,} {reason}" for reason, many in sorted(self.reasons.items()))
        lines = [
            f"{_counted(rows, 'row')}, compared with {_counted(known, 'known text')} and with each other: "
            f"{len(self.kept):,} kept{reasons}"
        ]
        for file in self.evaluation:
            items, cost = _counted(file["items"], "item"), _counted(file["rows_rejected"], "row")
            lines.append(f"overlap with {file['file']} ({items}): {cost}")
        if self.identifiers is not None:
            kinds = Counter(place["kind"] for place in self.identifiers).most_common()
            lines.append("personal identifiers: " + (", ".join(f"{kind} {n}" for kind, n in kinds) or "none"))
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Settings:
    threshold: Annotated[float, Range(0, 1)]
    policy: Annotated[str, get_args(Policy)]
    privacy: Annotated[str, get_args(Privacy)]
    lists_identifiers: bool

    def __post_init__(self) -> None:
        useless = self.lists_identifiers and self.privacy == "off"
        check(self, problems=["identifiers names a file, but privacy is off"] if useless else [])


class _Row(NamedTuple):
    where: str
    values: dict[str, Any]

    @property
    def instruction(self) -> str:
        return str(self.values["instruction"])


def filter(
    rows: Rows,
    out: str | Path | None = None,
    rejected: str | Path | None = None,
    *,
    threshold: float = 0.7,
    policy: Policy = "keep-first",
    against: Sequence[Rows] = (),
    seeds: bool = False,
    evaluation: Sequence[str | Path] = (),
    privacy: Privacy = "off",
    privacy_model: str = "",
    identifiers: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> FilteredRows:
    """Reject rows that overlap with evaluation sets, hold personal identifiers, or are near-duplicates of others.

    Args:
        rows: A file (JSON Lines or a JSON list), or a list of rows, each with a field ``instruction``.
        out: File for the kept rows.
        rejected: File for the rejected ones.
        threshold: ROUGE-L F1, 0 to 1, of two instructions, above which a row is a near-duplicate.
        policy: "keep-first" compares a row with those kept before it, "all-pairs" with all others, so that both
            members of a pair go, as in the published AlpaCare filter.
        against: Files, or lists, of rows that are kept already; they are compared with and not judged again.
        seeds: Also compare with the seed tasks that come with the package.
        evaluation: Evaluation sets that must not leak: files, with the names of their fields after a colon where they
            are not the usual ones, as in ``exam.csv:title,alternatives``.
        privacy: How to handle personal identifiers in instruction, input and output: "off" does not look for them,
            "report" lists them, "drop" rejects the row, "mask" puts [NAME], [DATE]... in their place.
        privacy_model: spaCy model that looks for names and places beside the patterns; needs the extra ``privacy``.
        identifiers: File for kind and place of every identifier found.
        overwrite: Replace the files if they exist.
        progress: Show the progress on standard error.

    Raises:
        ConfigError: An argument is invalid, or an output would replace an input.
        DataError: A file is broken or exists already, or a row has no instruction.

    Examples:
        >>> rows = [{"instruction": "Name five causes of chronic cough."},
        ...         {"instruction": "Name six causes of chronic cough."}]
        >>> found = filter(rows, progress=False)
        >>> len(found.kept), found.reasons["near-duplicate"]
        (1, 1)
    """
    _Settings(threshold, policy, privacy, identifiers is not None)
    inputs = [rows, *against, *(split_fields(spec)[0] for spec in evaluation)]
    _check_outputs(
        [Path(path) for path in (out, rejected, identifiers) if path is not None], inputs, overwrite
    )
    benchmarks = Benchmarks(evaluation) if evaluation else None
    safety = SafetyCheck(benchmarks, privacy, detector(privacy_model) if privacy != "off" else None)
    known = [*_seed_rows(seeds), *(row for source in against for row in _read(source))]
    with ProgressDisplay(enabled=progress) as display:
        checked, reasons, places = _check_safety(safety, list(_read(rows)), display)
        fit = [row for row, reason in zip(checked, reasons, strict=True) if reason is None]
        near = iter(_near_duplicates(fit, known, threshold, policy, display))
    found = FilteredRows([], [], None if privacy == "off" else places, [], len(known))
    for row, reason in zip(checked, reasons, strict=True):
        reason = reason or next(near)
        if reason is None:
            found.kept.append(row.values)
        else:
            before = {"rejected_before": row.values["rejected"]} if "rejected" in row.values else {}
            found.rejected.append({**row.values, **before, "rejected": reason})
    leaks = Counter(row["rejected"].get("evaluation_file") for row in found.rejected)
    for file in benchmarks.described() if benchmarks else ():
        found.evaluation.append(file | {"rows_rejected": leaks[file["file"]]})
    for path, content in ((out, found.kept), (rejected, found.rejected), (identifiers, places)):
        if path is not None:
            write_objects(path, content)
    return found


def _counted(many: int, what: str) -> str:
    return f"{many:,} {what}{'' if many == 1 else 's'}"


def _check_outputs(outputs: Sequence[Path], inputs: Iterable[Rows], overwrite: bool) -> None:
    read = {Path(source).resolve() for source in inputs if isinstance(source, str | Path)}
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ConfigError(
            "two outputs name the same file", found=", ".join(map(str, outputs)), expected="a file for each"
        )
    for path in outputs:
        if path.resolve() in read:
            raise ConfigError("an output would replace an input", found=path, remedy="name another file")
        refuse_existing(path, overwrite)


def _read(rows: Rows) -> Iterator[_Row]:
    for where, values in read_objects(rows, text="instruction"):
        value = values.get("instruction")
        if not isinstance(value, str):
            raise DataError(
                "the row has no instruction",
                where=where,
                found="no field 'instruction'"
                if value is None
                else f"{type(value).__name__} in 'instruction'",
                expected="a text in the field 'instruction'",
            )
        yield _Row(where, values)


def _seed_rows(wanted: bool) -> Iterator[_Row]:
    for number, seed in enumerate(load_seeds() if wanted else (), start=1):
        yield _Row(f"{SHIPPED}:{number}", {"instruction": seed.instruction})


def _check_safety(
    safety: SafetyCheck, rows: list[_Row], display: ProgressDisplay
) -> tuple[list[_Row], list[dict[str, Any] | None], list[dict[str, Any]]]:
    """Return the rows, masked if so asked, why each of them must go, or None, and the identifiers found."""
    if safety.benchmarks is None and safety.privacy == "off":
        return rows, [None] * len(rows), []
    action = {"report": "reported", "drop": "dropped", "mask": "masked"}.get(safety.privacy)
    checked: list[_Row] = []
    reasons: list[dict[str, Any] | None] = []
    places: list[dict[str, Any]] = []
    for where, values in _shown(rows, "rows checked", display):
        texts = {field: values[field] for field in _TEXT_FIELDS if isinstance(values.get(field), str)}
        reason = None
        try:
            texts, found = safety.check(texts)
        except Objection as objection:
            reason, found = (
                {"reason": objection.reason} | objection.details,
                objection.details.get("identifiers", []),
            )
        places += ({"row": where, "action": action} | place for place in found)
        checked.append(_Row(where, values | texts))
        reasons.append(reason)
    return checked, reasons, places


def _near_duplicates(
    rows: Sequence[_Row], known: Sequence[_Row], threshold: float, policy: Policy, display: ProgressDisplay
) -> list[dict[str, Any] | None]:
    """Compare each row with the known ones, and with the kept rows before it or with all others."""
    places = [row.where for row in known]
    texts = (row.instruction for row in known)
    shown = _shown(rows, "rows compared", display)
    if policy == "all-pairs":
        places += (row.where for row in rows)
        nearest = all_pairs((row.instruction for row in shown), texts, threshold)
        return [_near_duplicate(near, places) for near in nearest]
    pool = RougeFilter(texts, threshold)
    reasons = []
    for row in shown:
        near = pool.offer(row.instruction)
        if near is None:
            places.append(row.where)
        reasons.append(_near_duplicate(near, places))
    return reasons


def _near_duplicate(near: Near | None, places: Sequence[str]) -> dict[str, Any] | None:
    if near is None:
        return None
    return {
        "reason": NEAR_DUPLICATE,
        "nearest": near.text,
        "nearest_at": places[near.index],
        "score": round(near.score, 4),
    }


def _shown(rows: Sequence[_Row], doing: str, display: ProgressDisplay) -> Iterator[_Row]:
    for number, row in enumerate(rows, start=1):
        yield row
        if number % _ROWS_PER_UPDATE == 0 or number == len(rows):
            display.update(doing, number, len(rows))
