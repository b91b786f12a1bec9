"""Counts of requests, tasks and answers of a run at each step, and their cost."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from datagen.decoding import read_json_object
from datagen.errors import DataError
from datagen.ledger import Ledger
from datagen.money.projection import Money
from datagen.settings import Settings
from datagen.task_filter import FilteredAnswers, TaskFilter

_NOTE = "progress"
Counts = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Funnel:
    """The content of ``funnel.json``. Each level of the counts adds up to the one before.

    Attributes:
        target: Tasks wanted.
        target_reached: Whether that many were kept.
        task_requests: Task requests whose replies were filtered.
        task_replies: Their replies.
        task_requests_failed: Failed requests by reason.
        tasks_found: Pieces found in the replies.
        tasks_rejected: Rejected pieces by reason.
        tasks_kept: Tasks that passed.
        answer_requests: Requests for answers.
        answer_replies: Answers received.
        answer_requests_failed: Failed requests by reason.
        answers_rejected: Rejected answers by reason.
        instructions: Instructions published.
        prompt_tokens: Prompt tokens of all replies.
        completion_tokens: Their completion tokens.
        budget_reached: Whether the budget ended the run; None during the run.
        money: Amounts spent; None during the run.
        nothing_published: Reason why no answer could be published; None if some were.
        identifiers: Personal identifiers found, by kind; None if ``privacy`` is "off".
        evaluation_overlaps: Tasks and answers rejected for each evaluation file; None without such files.
    """

    target: int = 0
    target_reached: bool = False
    task_requests: int = 0
    task_replies: int = 0
    task_requests_failed: Counts = dataclasses.field(default_factory=dict)
    tasks_found: int = 0
    tasks_rejected: Counts = dataclasses.field(default_factory=dict)
    tasks_kept: int = 0
    answer_requests: int = 0
    answer_replies: int = 0
    answer_requests_failed: Counts = dataclasses.field(default_factory=dict)
    answers_rejected: Counts = dataclasses.field(default_factory=dict)
    instructions: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    budget_reached: bool | None = None
    money: Money | None = None
    nothing_published: str | None = None
    identifiers: Counts | None = None
    evaluation_overlaps: Counts | None = None

    @classmethod
    def count(cls, task_filter: TaskFilter, answers: FilteredAnswers, settings: Settings) -> Self:
        """Count requests, tasks and answers at each step."""
        rejected = Counter(row["reason"] for row in task_filter.rejected)
        unfit = Counter(row["reason"] for row in answers.rejected if "error" not in row)
        return cls(
            target=settings.target,
            target_reached=task_filter.full,
            task_requests=task_filter.requests,
            task_replies=task_filter.replies,
            task_requests_failed=dict(sorted(task_filter.failed.items())),
            tasks_found=task_filter.found,
            tasks_rejected=dict(sorted(rejected.items())),
            tasks_kept=len(task_filter.kept),
            answer_requests=len(task_filter.kept),
            answer_replies=answers.replies,
            answer_requests_failed=dict(sorted(answers.failed.items())),
            answers_rejected=dict(sorted(unfit.items())),
            instructions=len(answers.instructions),
            prompt_tokens=task_filter.prompt_tokens + answers.prompt_tokens,
            completion_tokens=task_filter.completion_tokens + answers.completion_tokens,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``funnel.json``; counts missing in files of older versions are 0.

        Raises:
            DataError: The file is missing or invalid; the first invalid key is named.
        """
        return cls._validate(read_json_object(path), path)

    @classmethod
    def noted(cls, ledger: Ledger) -> Self | None:
        """Return the counts that the run recorded last; None if it never recorded any."""
        text = ledger.noted(_NOTE)
        return None if text is None else cls._validate(json.loads(text), ledger.path)

    @classmethod
    def _validate(cls, content: Mapping[str, Any], where: Path) -> Self:
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(f"{key} of the funnel is not valid", where=where, found=first["input"]) from None

    def note(self, ledger: Ledger) -> None:
        """Record the counts in the ledger, for ``noted``."""
        ledger.note(_NOTE, json.dumps(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON, without those that are None."""
        values = dataclasses.asdict(self) | {"money": self.money and self.money.to_dict()}
        return {key: value for key, value in values.items() if value is not None}
