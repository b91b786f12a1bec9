"""Publishing: kept tasks and their answers become files, the same bytes for the same ledger."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datagen.client import Reply
from datagen.records import Instruction, write_atomically, write_objects, write_records
from datagen.sieve import AnswerCheck, KeptTask, Objection, apply_answer_checks


@dataclasses.dataclass
class Outcome:
    """What became of the answers: instructions, rejected rows, failed requests by code, tokens."""

    instructions: list[Instruction] = dataclasses.field(default_factory=list)
    rejected: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    failed: Counter[str] = dataclasses.field(default_factory=Counter)
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def settle(
    kept: Sequence[KeptTask], replies: Sequence[Reply], prompt_version: str, checks: Sequence[AnswerCheck]
) -> Outcome:
    """Join every kept task with its answer, which is published or rejected with a reason.

    Args:
        kept: Kept tasks.
        replies: Their answers, in the same order.
        prompt_version: Version of the prompts, for the records' source.
        checks: What an answer must pass, in order.
    """
    outcome = Outcome()
    for task, reply in zip(kept, replies, strict=True):
        assert task.id == reply.id, "an answer belongs to another task"
        row: dict[str, Any] = {
            "id": task.id,
            "request": f"answers/{reply.id}",
            "reason": "",
            **task.task.to_dict(),
        }
        if reply.error:
            outcome.failed[reply.error_code] += 1
            outcome.rejected.append(row | {"reason": f"answer-{reply.error_code}", "error": reply.error})
            continue
        outcome.replies += 1
        outcome.prompt_tokens += reply.prompt_tokens
        outcome.completion_tokens += reply.completion_tokens
        passed = apply_answer_checks(task.task, reply, checks)
        if isinstance(passed, Objection):
            outcome.rejected.append(row | {"reason": passed.reason, "text": reply.text} | passed.details)
        else:
            outcome.instructions.append(_instruction(task, passed, prompt_version))
    return outcome


def _instruction(kept: KeptTask, reply: Reply, prompt_version: str) -> Instruction:
    task = kept.task
    return Instruction(
        instruction=task.instruction,
        output=reply.text.strip(),
        input=task.normal_input(),
        id=kept.id,
        type=task.type,
        topic=task.topic,
        view=task.view,
        difficulty=task.difficulty,
        source={
            "models": {"task": kept.model, "answer": reply.model},
            "prompt_version": prompt_version,
            "requests": {"task": f"tasks/{kept.request}", "answer": f"answers/{reply.id}"},
            "time": reply.time,
        },
        extra=task.extra,
    )


def write_tasks(work: Path, kept: Sequence[KeptTask], rejected: Sequence[dict[str, Any]]) -> None:
    """Write ``tasks.jsonl`` and ``rejected.jsonl``."""
    rows = ({"id": each.id, **each.task.to_dict(), "request": f"tasks/{each.request}"} for each in kept)
    write_objects(work / "tasks.jsonl", rows)
    write_objects(work / "rejected.jsonl", rejected)


def write_all(
    work: Path,
    kept: Sequence[KeptTask],
    rejected: Sequence[dict[str, Any]],
    outcome: Outcome,
    funnel: dict[str, Any],
) -> None:
    """Write all result files; ``funnel.json`` comes last and so says that the others are complete."""
    write_tasks(work, kept, [*rejected, *outcome.rejected])
    write_records(work / "instructions.jsonl", outcome.instructions)
    text = json.dumps(funnel, indent=2)
    write_atomically(work / "funnel.json", lambda file: file.write(text + "\n"))
