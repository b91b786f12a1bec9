"""How far a work folder is, read beside a running job: its counts, what it spent, what it will probably cost.

A run notes its funnel in the ledger about once a second, because judging 50,000 tasks anew takes a while; the status
joins that note with the ledger's own counts, which are always of the moment.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from datagen.ledger import Ledger
from datagen.money import Purse

_NOTE = "progress"
_SECONDS_BETWEEN_NOTES = 1.0


@dataclasses.dataclass(frozen=True)
class Money:
    """What a run spent and will probably spend, in US dollars.

    Attributes:
        spent_usd: Everything spent, with the worst case of tries whose bill is unknown.
        unknown_usd: That worst case alone.
        tasks_usd: The part that went into tasks.
        answers_usd: The part that went into answers.
        projected_usd: What the whole will have cost when the target is reached; None while nothing tells.
        budget_usd: The cap, or None.
        unpriced_tries: Tries that had no price and so are in none of the sums.
    """

    spent_usd: float
    unknown_usd: float
    tasks_usd: float
    answers_usd: float
    projected_usd: float | None
    budget_usd: float | None
    unpriced_tries: int


def money(
    spending: Mapping[str, Mapping[str, float]],
    *,
    kept: int,
    answered: int,
    target: int,
    budget_usd: float | None = None,
    answer_usd: float | None = None,
) -> Money:
    """Sum what was spent, and project it: cost so far per task and per answer, times what is missing.

    Args:
        spending: What :meth:`Ledger.spending` says.
        kept: Tasks kept so far.
        answered: Answers in.
        target: Tasks wanted.
        budget_usd: The cap in US dollars, or None.
        answer_usd: What one answer is expected to cost as long as none is in, in US dollars.

    Example:
        >>> spent = {"tasks": {"spent_usd": 2.0, "unknown_usd": 0.0, "held_usd": 0.0, "unpriced": 0}}
        >>> money(spent, kept=10, answered=0, target=40, answer_usd=0.05).projected_usd
        10.0
    """
    by_stage = {stage: each["spent_usd"] + each["unknown_usd"] for stage, each in spending.items()}
    tasks = math.fsum(usd for stage, usd in by_stage.items() if stage != "answers")
    answers = by_stage.get("answers", 0.0)
    per_answer = answers / answered if answered else answer_usd
    projected = None
    if kept and per_answer is not None:
        still_asked = max(0, target - kept)
        projected = tasks + tasks / kept * still_asked + answers + per_answer * max(0, target - answered)
    return Money(
        spent_usd=math.fsum(by_stage.values()),
        unknown_usd=math.fsum(each["unknown_usd"] for each in spending.values()),
        tasks_usd=tasks,
        answers_usd=answers,
        projected_usd=projected,
        budget_usd=budget_usd,
        unpriced_tries=round(sum(each["unpriced"] for each in spending.values())),
    )


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is: requests settled, tasks kept and rejected of the target, answers in, tries, money."""

    stage: str
    requests: int
    kept: int
    rejected: int
    target: int
    answered: int = 0
    tries: int = 0
    money: Money | None = None


Watch = Callable[[Progress], None]


class Reporter:
    """Tells a watcher how far a run is, with its money, and notes it in the ledger for ``--status``.

    Args:
        ledger: Where the funnel is noted.
        purse: What is spent.
        target: Tasks wanted.
        answer_usd: What one answer is expected to cost as long as none is in, in US dollars.
        watch: Called at every step, or None.
    """

    def __init__(
        self, ledger: Ledger, purse: Purse, target: int, answer_usd: float | None, watch: Watch | None
    ) -> None:
        self._ledger, self._purse, self._watch = ledger, purse, watch
        self._target, self._answer_usd = target, answer_usd
        self._noted_at_s = -math.inf

    def tell(self, progress: Progress, funnel: Callable[[], Mapping[str, Any]]) -> None:
        """Pass a step on; ``funnel`` is asked for the counts only when they are noted."""
        if self._watch is not None:
            money = self.money(progress.kept, progress.answered)
            self._watch(dataclasses.replace(progress, tries=self._purse.tries_ended, money=money))
        if time.monotonic() - self._noted_at_s >= _SECONDS_BETWEEN_NOTES:
            self.note(funnel())

    def note(self, funnel: Mapping[str, Any]) -> None:
        """Note the counts in the ledger now, as at the end of a stage."""
        self._noted_at_s = time.monotonic()
        note_funnel(self._ledger, funnel)

    def answer_usd(self, answered: int) -> float | None:
        """Return what one answer costs: the mean of those that are in, or what is expected; None without a price."""
        sums = self._purse.spending().get("answers")
        if not answered or sums is None or sums["unpriced"]:
            return self._answer_usd
        return (sums["spent_usd"] + sums["unknown_usd"]) / answered

    def money(self, kept: int, answered: int) -> Money:
        """Return what is spent and projected, with so many tasks kept and answers in."""
        return money(
            self._purse.spending(),
            kept=kept,
            answered=answered,
            target=self._target,
            budget_usd=self._purse.budget_usd,
            answer_usd=self._answer_usd,
        )


def note_funnel(ledger: Ledger, funnel: Mapping[str, Any]) -> None:
    """Note how far the run is, for :func:`noted_funnel`."""
    ledger.note(_NOTE, json.dumps(funnel))


def noted_funnel(ledger: Ledger) -> dict[str, Any] | None:
    """Return the funnel that the run noted last, or None where it never did."""
    text = ledger.noted(_NOTE)
    return None if text is None else json.loads(text)
