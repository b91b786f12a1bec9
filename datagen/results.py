"""The result files of a work folder: the same bytes for the same ledger."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datagen.files import write_json
from datagen.privacy import MASK
from datagen.records import Instruction, write_objects, write_records
from datagen.safety import IDENTIFIER, OVERLAP, benchmarks, detector, identifiers
from datagen.settings import Settings
from datagen.task_filter import FilteredAnswers, KeptTask

PRIVACY_REPORT = "privacy.jsonl"
CONTAMINATION_REPORT = "contamination.json"


def write_tasks(work: Path, kept: Sequence[KeptTask], rejected: Sequence[dict[str, Any]]) -> None:
    """Write ``tasks.jsonl`` and ``rejected.jsonl``."""
    rows = ({"id": each.id, **each.task.to_dict(), "request": f"tasks/{each.request}"} for each in kept)
    write_objects(work / "tasks.jsonl", rows)
    write_objects(work / "rejected.jsonl", rejected)


def write_all(
    work: Path,
    kept: Sequence[KeptTask],
    rejected: Sequence[dict[str, Any]],
    answers: FilteredAnswers,
    funnel: dict[str, Any],
) -> None:
    """Write all result files; ``funnel.json`` comes last and marks the others as complete."""
    write_tasks(work, kept, [*rejected, *answers.rejected])
    write_records(work / "instructions.jsonl", answers.instructions)
    write_json(work / "funnel.json", funnel)


def privacy_rows(
    settings: Settings, instructions: Iterable[Instruction], rejected: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield one row for every identifier: those that were published, masked, or led to a rejection.

    The rows name kind and place and not the text, so that the report does not itself disclose identifiers. The place
    of a masked one is that of its mask in the published text.
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
        and answers were rejected for each evaluation file, zeros included.
    """
    summary: dict[str, Any] = {}
    if settings.privacy != "off":
        rows = list(privacy_rows(settings, instructions, rejected))
        write_objects(work / PRIVACY_REPORT, rows)
        kinds = Counter(row["kind"] for row in rows)
        summary["identifiers"] = dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])))
    if settings.evaluation_files:
        report = contamination_report(settings, rejected)
        write_json(work / CONTAMINATION_REPORT, report)
        summary["evaluation_overlaps"] = {
            file["file"]: file["tasks_rejected"] + file["answers_rejected"] for file in report["files"]
        }
    return summary
