"""The checks for personal identifiers and for overlap with evaluation sets, and their reports in the work folder."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from datagen.checks import AnswerCheck, Objection, TaskCheck
from datagen.client import Reply
from datagen.contamination import Benchmarks
from datagen.contamination.evaluation_files import content_hash
from datagen.privacy import MASK, Detector, find, mask
from datagen.records import Instruction, SeedTask, shorten, write_atomically, write_objects
from datagen.settings import Settings

PRIVACY_REPORT = "privacy.jsonl"
CONTAMINATION_REPORT = "contamination.json"
IDENTIFIER = "personal-identifier"
OVERLAP = "evaluation-overlap"
_LISTED = 10


def safe_task_checks(settings: Settings) -> list[TaskCheck]:
    """Return the checks that the settings ask for of a new task: overlap first, on the text as it was written."""
    checks: list[TaskCheck] = []
    if settings.evaluation_files:
        checks.append(_NoOverlap(benchmarks(settings)).check_task)
    # Loaded at the start in any case: that a model is missing must not come to light when all is paid for.
    model = detector(settings.privacy_model) if settings.privacy != "off" else None
    if settings.privacy in ("drop", "mask"):
        checks.append(_NoIdentifiers(settings.privacy, model).check_task)
    return checks


def safe_answer_checks(settings: Settings) -> list[AnswerCheck]:
    """Return the checks that the settings ask for of an answer."""
    checks: list[AnswerCheck] = []
    if settings.evaluation_files:
        checks.append(_NoOverlap(benchmarks(settings)).check_answer)
    if settings.privacy in ("drop", "mask"):
        checks.append(_NoIdentifiers(settings.privacy, detector(settings.privacy_model)).check_answer)
    return checks


def benchmarks(settings: Settings) -> Benchmarks:
    """Return the indexed evaluation files of the settings; they are read again only when one has changed."""
    hashes = tuple(content_hash(spec) for spec in settings.evaluation_files)
    return _benchmarks(
        settings.evaluation_files, hashes, settings.contamination_ngram, settings.contamination_rouge_l
    )


@lru_cache(maxsize=1)
def _benchmarks(files: tuple[str, ...], hashes: tuple[str, ...], ngram: int, rouge_l: float) -> Benchmarks:
    return Benchmarks(files, ngram, rouge_l)


@dataclasses.dataclass(frozen=True)
class _NoOverlap:
    benchmarks: Benchmarks

    def check_task(self, task: SeedTask) -> Objection | None:
        leak = self.benchmarks.check_task(task.instruction, task.normal_input())
        return Objection(OVERLAP, leak.details()) if leak else None

    def check_answer(self, task: SeedTask, reply: Reply) -> Objection | None:
        leak = self.benchmarks.check_answer(reply.text)
        return Objection(OVERLAP, leak.details()) if leak else None


@dataclasses.dataclass(frozen=True)
class _NoIdentifiers:
    policy: str
    detector: Detector | None

    def check_task(self, task: SeedTask) -> Objection | SeedTask | None:
        said = self._check({"instruction": task.instruction, "input": task.input})
        if not isinstance(said, dict):
            return said
        return dataclasses.replace(task, instruction=said["instruction"], input=said["input"])

    def check_answer(self, task: SeedTask, reply: Reply) -> Objection | Reply | None:
        said = self._check({"output": reply.text})
        return dataclasses.replace(reply, text=said["output"]) if isinstance(said, dict) else said

    def _check(self, fields: Mapping[str, str]) -> Objection | dict[str, str] | None:
        places = list(identifiers(fields, self.detector))
        if not places:
            return None
        if self.policy == "drop":
            return Objection(IDENTIFIER, {"identifiers": places})
        return {field: mask(text, find(text, self.detector)) for field, text in fields.items()}


def detector(model: str) -> Detector | None:
    """Return the detector that runs a spaCy model beside the patterns, or None for the patterns alone.

    Raises:
        ConfigError: The extra ``privacy`` or the model is not installed.
    """
    if not model:
        return None
    from datagen.privacy.detector import presidio

    return presidio(model)


def identifiers(fields: Mapping[str, str], detector: Detector | None = None) -> Iterator[dict[str, Any]]:
    """Yield kind and place, but not the text, of every identifier in some named fields.

    Example:
        >>> list(identifiers({"instruction": "Write to Mrs. Lind."}))
        [{'kind': 'NAME', 'field': 'instruction', 'start': 14, 'end': 18}]
    """
    for field, text in fields.items():
        for hit in find(text, detector):
            yield {"kind": hit.kind, "field": field, "start": hit.start, "end": hit.end}


def privacy_rows(
    settings: Settings, instructions: Iterable[Instruction], rejected: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield one row for every identifier: those that were published, masked, or led to a rejection.

    The rows name kind and place and not the text, so that the report is no list of identifiers itself. The place of a
    masked one is that of its mask in the published text.
    """
    policy, model = settings.privacy, detector(settings.privacy_model)
    for each in instructions:
        fields = {"instruction": each.instruction, "input": each.input, "output": each.output}
        if policy == "report":
            for place in identifiers(fields, model):
                yield {"id": each.id, "action": "reported", **place}
        elif policy == "mask":
            for field, text in fields.items():
                for match in MASK.finditer(text):
                    place = {"kind": match[1], "field": field, "start": match.start(), "end": match.end()}
                    yield {"id": each.id, "action": "masked", **place}
    for row in rejected:
        if row["reason"] == IDENTIFIER:
            for place in row["identifiers"]:
                yield {"id": row["id"], "action": "dropped", **place}


def contamination_report(settings: Settings, rejected: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe the evaluation files and count, for each, the tasks and answers that were rejected because of it."""
    files = benchmarks(settings).described()
    overlaps = [row for row in rejected if row["reason"] == OVERLAP]
    for file in files:
        mine = [row for row in overlaps if row["evaluation_file"] == file["file"]]
        answers = sum(row["overlap_in"] == "answer" for row in mine)
        kinds = Counter(row["overlap"] for row in mine)
        file |= {
            "tasks_rejected": len(mine) - answers,
            "answers_rejected": answers,
            "by_kind": dict(sorted(kinds.items())),
        }
    # The texts stay in rejected.jsonl: this report is published, and test questions must not be.
    shown = ("evaluation_file", "evaluation_item", "overlap", "overlap_in", "rouge_l")
    return {
        "ngram": settings.contamination_ngram,
        "rouge_l": settings.contamination_rouge_l,
        "files": files,
        "overlaps": [{"id": row["id"]} | {key: row[key] for key in shown if key in row} for row in overlaps],
    }


def write_reports(
    work: Path,
    settings: Settings,
    instructions: Sequence[Instruction],
    rejected: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Write ``privacy.jsonl``, unless the policy is "off", and, with evaluation files, ``contamination.json``.

    Returns:
        For the funnel: ``identifiers``, how many of each kind were found, and ``evaluation_overlaps``, how many tasks
        and answers were rejected for each evaluation file, also where it is none.
    """
    summary: dict[str, Any] = {}
    if settings.privacy != "off":
        rows = list(privacy_rows(settings, instructions, rejected))
        write_objects(work / PRIVACY_REPORT, rows)
        kinds = Counter(row["kind"] for row in rows)
        summary["identifiers"] = dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])))
    if settings.evaluation_files:
        report = contamination_report(settings, rejected)
        text = json.dumps(report, indent=2, ensure_ascii=False)
        write_atomically(work / CONTAMINATION_REPORT, lambda file: file.write(text + "\n"))
        summary["evaluation_overlaps"] = {
            file["file"]: file["tasks_rejected"] + file["answers_rejected"] for file in report["files"]
        }
    return summary


def leaking_seeds(settings: Settings, seeds: Sequence[SeedTask]) -> list[str]:
    """Say which seed tasks overlap with an evaluation file: the teacher sees them, and may write the like.

    Returns:
        One sentence each for the first ten, and one for the rest.
    """
    if not settings.evaluation_files:
        return []
    indexed = benchmarks(settings)
    found = ((seed, indexed.check_task(seed.instruction, seed.normal_input())) for seed in seeds)
    leaks = [(seed, leak) for seed, leak in found if leak is not None]
    sentences = [
        f"{shorten(seed.instruction, 60)!r} overlaps with item {leak.item} of {leak.file} ({leak.kind})"
        for seed, leak in leaks[:_LISTED]
    ]
    more = len(leaks) - _LISTED
    return [*sentences, f"{more} more of them overlap with evaluation files"] if more > 0 else sentences
