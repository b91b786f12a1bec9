"""Filters the teacher's tasks and answers: each passes all checks, in order, or is rejected.

A check returns the text that the next check sees, such as one with a masked name, or raises an :class:`Objection`.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from datagen import quality
from datagen.client import Reply
from datagen.dedup import RougeFilter
from datagen.finish import read_finish
from datagen.parse import FIELDS, REFUSED, Rejected, read_tasks
from datagen.prompts import PROMPT_VERSION
from datagen.records import Instruction, SeedTask
from datagen.replies.answers import CONTROL_TOKENS, bare_answer, holds_thoughts, leftover
from datagen.replies.thinking import without_thoughts
from datagen.replies.tokens import control_tokens
from datagen.safety import Objection, SafetyCheck, safety_check
from datagen.settings import Settings


@dataclasses.dataclass(frozen=True)
class KeptTask:
    """A task that passed the checks: its id, the request that it came from, and the model that wrote it."""

    id: str
    task: SeedTask
    request: str
    model: str


def show_task(task: SeedTask) -> SeedTask:
    """Take thoughts and control tokens off the fields of a task; object to those that remain within one."""
    texts: dict[str, Any] = {name: without_thoughts(getattr(task, name)) for name in FIELDS}
    if any(control_tokens(text) or holds_thoughts(text) for text in texts.values()):
        raise Objection(CONTROL_TOKENS)
    return dataclasses.replace(task, **texts)


def check_answer(task: SeedTask, reply: Reply, language: str, safety: SafetyCheck) -> Reply:
    """Return the answer to a task as the checks leave it, without thoughts and control tokens.

    Raises:
        Objection: A check rejects it; an answer that was cut is marked with how.
    """
    if reply.finish_reason == REFUSED:
        raise Objection("refusal")
    asked = f"{task.instruction}\n{task.normal_input()}"
    reply = dataclasses.replace(reply, text=bare_answer(reply.text, asked))
    if reason := quality.check_answer(reply.text, reply.finish_reason, task, language):
        whole = read_finish(reply.finish_reason) == "whole"
        raise Objection(reason, {} if whole else {"finish_reason": reply.finish_reason})
    if reason := leftover(reply.text, asked):
        raise Objection(reason)
    return safety.check_answer(reply)


class TaskFilter:
    """Turns task replies, offered in request order, into kept and rejected tasks.

    Args:
        seeds: Their instructions count as kept before the first reply.
        settings: Target, checks and the form of the requests.
    """

    def __init__(self, seeds: Sequence[SeedTask], settings: Settings) -> None:
        self._settings = settings
        self._safety = safety_check(settings)
        self._distinct = RougeFilter((seed.instruction for seed in seeds), settings.similarity)
        self.kept: list[KeptTask] = []
        self.rejected: list[dict[str, Any]] = []
        self.failed: Counter[str] = Counter()
        self.requests = 0
        self.replies = 0
        self.found = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    @property
    def full(self) -> bool:
        """Whether the target is reached."""
        return len(self.kept) >= self._settings.target

    def take(self, reply: Reply) -> None:
        """Judge every task of one reply; a failed request is only counted."""
        self.requests += 1
        if reply.error:
            self.failed[reply.error_code] += 1
            return
        self.replies += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        pieces = read_tasks(
            reply.text,
            first_number=self._settings.examples + 1,
            expected=self._settings.tasks_per_request,
            finish_reason=reply.finish_reason,
        )
        for place, piece in enumerate(pieces):
            self.found += 1
            self._judge(reply, f"t{reply.id}-{place:02d}", piece)

    def _judge(self, reply: Reply, id: str, piece: SeedTask | Rejected) -> None:
        row: dict[str, Any] = {"id": id, "request": f"tasks/{reply.id}"}
        if isinstance(piece, Rejected):
            self.rejected.append(row | {"reason": piece.reason, "text": piece.text})
            return
        row |= {"reason": "", **piece.to_dict()}
        if self.full:
            self.rejected.append(row | {"reason": "beyond-target"})
            return
        try:
            self.kept.append(KeptTask(id, self._check(piece), reply.id, reply.model))
        except Objection as objection:
            self.rejected.append(row | {"reason": objection.reason} | objection.details)

    def _check(self, task: SeedTask) -> SeedTask:
        """Return a new task as the checks leave it."""
        task = show_task(task)
        if reason := quality.check_task(task, self._settings.language):
            raise Objection(reason)
        task = self._safety.check_task(task)
        # Last: what this one lets pass counts as kept.
        if near := self._distinct.offer(task.instruction):
            raise Objection("near-duplicate", {"nearest": near.text, "rouge_l": round(near.score, 4)})
        return task

    def requests_wanted(self) -> int:
        """Estimate how many more requests the target needs, so that few are wasted."""
        return max(1, -int(-(self._settings.target - len(self.kept)) // self.kept_of_a_request()))

    def kept_of_a_request(self) -> float:
        """Estimate how many tasks of one more request are kept; all of them before the first reply."""
        return (len(self.kept) + self._settings.tasks_per_request) / (self.requests + 1)


@dataclasses.dataclass
class FilteredAnswers:
    """The filtered answers: instructions, rejected rows, failed requests by code, tokens."""

    instructions: list[Instruction] = dataclasses.field(default_factory=list)
    rejected: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    failed: Counter[str] = dataclasses.field(default_factory=Counter)
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def filter_answers(kept: Sequence[KeptTask], replies: Sequence[Reply], settings: Settings) -> FilteredAnswers:
    """Join every kept task with its answer, which becomes an instruction or is rejected with a reason.

    Args:
        kept: Kept tasks.
        replies: Their answers, in the same order.
        settings: The checks that an answer must pass.
    """
    safety = safety_check(settings)
    answers = FilteredAnswers()
    for task, reply in zip(kept, replies, strict=True):
        assert task.id == reply.id, "an answer belongs to another task"
        row: dict[str, Any] = {
            "id": task.id,
            "request": f"answers/{reply.id}",
            "reason": "",
            **task.task.to_dict(),
        }
        if reply.error:
            answers.failed[reply.error_code] += 1
            answers.rejected.append(row | {"reason": f"answer-{reply.error_code}", "error": reply.error})
            continue
        answers.replies += 1
        answers.prompt_tokens += reply.prompt_tokens
        answers.completion_tokens += reply.completion_tokens
        try:
            answers.instructions.append(
                _instruction(task, check_answer(task.task, reply, settings.language, safety))
            )
        except Objection as objection:
            answers.rejected.append(
                row | {"reason": objection.reason, "text": reply.text} | objection.details
            )
    return answers


def _instruction(kept: KeptTask, reply: Reply) -> Instruction:
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
            "prompt_version": PROMPT_VERSION,
            "requests": {"task": f"tasks/{kept.request}", "answer": f"answers/{reply.id}"},
            "time": reply.time,
        },
        extra=task.extra,
    )
