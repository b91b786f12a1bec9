"""Judges what the teacher wrote: every task and every answer passes a list of checks, in order, or is rejected.

A check sees one task (or one answer) and says nothing, objects with a short stable reason, or hands on a changed one
(a masked name, for instance) that the later checks see in its place. A check that must see every kept task, such as
the one for near-duplicates, stands last: what it lets pass is kept.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from datagen import quality
from datagen.checks import AnswerCheck, Objection, TaskCheck
from datagen.client import Reply
from datagen.dedup import RougeFilter
from datagen.finish import read_finish
from datagen.language import ANY
from datagen.parse import FIELDS, REFUSED, Rejected, read_tasks
from datagen.prompts import PROMPT_VERSION
from datagen.records import Instruction, SeedTask
from datagen.replies.answers import CONTROL_TOKENS, bare_answer, holds_thoughts, leftover
from datagen.replies.thinking import without_thoughts
from datagen.replies.tokens import control_tokens
from datagen.safety import safety_check
from datagen.settings import Settings


@dataclasses.dataclass(frozen=True)
class KeptTask:
    """A task that passed the checks: its id, the request that it came from, and the model that wrote it."""

    id: str
    task: SeedTask
    request: str
    model: str


def task_checks(settings: Settings, seeds: Sequence[SeedTask]) -> list[TaskCheck]:
    """Return the checks of a new task, in order. The seeds' instructions count as kept before the first reply."""
    quality_check = functools.partial(check_quality, language=settings.language)
    return [
        show_task,
        quality_check,
        safety_check(settings).check_task,
        _NoNearDuplicate(seeds, settings.similarity),
    ]


def answer_checks(settings: Settings) -> list[AnswerCheck]:
    """Return the checks of an answer, in order."""
    answer_check = functools.partial(check_answer, language=settings.language)
    return [show_answer, answer_check, check_leftover, safety_check(settings).check_answer]


def apply_task_checks(task: SeedTask, checks: Sequence[TaskCheck]) -> Objection | SeedTask:
    """Pass a task through the checks; return the first objection, or the task as the checks left it.

    Example:
        >>> apply_task_checks(SeedTask("Look at the attached image."), [check_quality])
        Objection(reason='asks-for-media', details={})
    """
    for check in checks:
        said = check(task)
        if isinstance(said, Objection):
            return said
        task = said or task
    return task


def apply_answer_checks(task: SeedTask, reply: Reply, checks: Sequence[AnswerCheck]) -> Objection | Reply:
    """Pass the answer to a task through the checks; return the first objection, or the reply as they left it."""
    for check in checks:
        said = check(task, reply)
        if isinstance(said, Objection):
            return said
        reply = said or reply
    return reply


def check_quality(task: SeedTask, *, language: str = ANY) -> Objection | None:
    """Object to what :func:`datagen.quality.check_task` finds."""
    reason = quality.check_task(task, language)
    return Objection(reason) if reason else None


def show_task(task: SeedTask) -> Objection | SeedTask | None:
    """Take thoughts and control tokens off the fields of a task; object to those that remain within one."""
    texts = {name: getattr(task, name) for name in FIELDS}
    shown: dict[str, Any] = {name: without_thoughts(text) for name, text in texts.items()}
    if any(control_tokens(text) or holds_thoughts(text) for text in shown.values()):
        return Objection(CONTROL_TOKENS)
    return dataclasses.replace(task, **shown) if shown != texts else None


def show_answer(task: SeedTask, reply: Reply) -> Objection | Reply:
    """Object to a refusal that the service marks as one; take the answer alone out of any other reply."""
    if reply.finish_reason == REFUSED:
        return Objection("refusal")
    return dataclasses.replace(reply, text=bare_answer(reply.text, _asked(task)))


def check_leftover(task: SeedTask, reply: Reply) -> Objection | None:
    """Object to what :func:`datagen.replies.answers.leftover` finds beside the answer."""
    reason = leftover(reply.text, _asked(task))
    return Objection(reason) if reason else None


def _asked(task: SeedTask) -> str:
    return f"{task.instruction}\n{task.normal_input()}"


def check_answer(task: SeedTask, reply: Reply, *, language: str = ANY) -> Objection | None:
    """Object to what :func:`datagen.quality.check_answer` finds; an answer that was cut is marked with how."""
    reason = quality.check_answer(reply.text, reply.finish_reason, task, language)
    whole = read_finish(reply.finish_reason) == "whole"
    cut = {} if whole else {"finish_reason": reply.finish_reason}
    return Objection(reason, cut) if reason else None


class _NoNearDuplicate:
    """Keeps every instruction that it lets pass, and objects to those that are too like one of them."""

    def __init__(self, seeds: Sequence[SeedTask], similarity: float) -> None:
        self._filter = RougeFilter((seed.instruction for seed in seeds), similarity)

    def __call__(self, task: SeedTask) -> Objection | None:
        near = self._filter.offer(task.instruction)
        if near is None:
            return None
        return Objection("near-duplicate", {"nearest": near.text, "rouge_l": round(near.score, 4)})


class TaskFilter:
    """Turns task replies, offered in request order, into kept and rejected tasks.

    Args:
        seeds: Their instructions count as kept before the first reply.
        settings: Target, checks and the form of the requests.
    """

    def __init__(self, seeds: Sequence[SeedTask], settings: Settings) -> None:
        self._settings = settings
        self._checks = task_checks(settings, seeds)
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
        outcome = apply_task_checks(piece, self._checks)
        if isinstance(outcome, Objection):
            self.rejected.append(row | {"reason": outcome.reason} | outcome.details)
        else:
            self.kept.append(KeptTask(id, outcome, reply.id, reply.model))

    def requests_wanted(self) -> int:
        """Estimate how many more requests the target needs, so that few are sent in vain."""
        return max(1, -int(-(self._settings.target - len(self.kept)) // self.kept_of_a_request()))

    def kept_of_a_request(self) -> float:
        """Estimate how many tasks of one more request are kept; all of them, as long as none is in."""
        return (len(self.kept) + self._settings.tasks_per_request) / (self.requests + 1)


@dataclasses.dataclass
class FilteredAnswers:
    """What became of the answers: instructions, rejected rows, failed requests by code, tokens."""

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
    checks = answer_checks(settings)
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
        passed = apply_answer_checks(task.task, reply, checks)
        if isinstance(passed, Objection):
            answers.rejected.append(row | {"reason": passed.reason, "text": reply.text} | passed.details)
        else:
            answers.instructions.append(_instruction(task, passed))
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
