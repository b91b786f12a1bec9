"""The result files of a work folder: the same bytes for the same ledger."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datagen.records import write_atomically, write_objects, write_records
from datagen.task_filter import FilteredAnswers, KeptTask


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
    """Write all result files; ``funnel.json`` comes last and so says that the others are complete."""
    write_tasks(work, kept, [*rejected, *answers.rejected])
    write_records(work / "instructions.jsonl", answers.instructions)
    text = json.dumps(funnel, indent=2)
    write_atomically(work / "funnel.json", lambda file: file.write(text + "\n"))
