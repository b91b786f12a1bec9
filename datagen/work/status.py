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
from datagen.money.budget import Budget

_NOTE = "progress"
_SECONDS_BETWEEN_NOTES = 1.0


@dataclasses.dataclass(frozen=True)
class Money:
    """What a run spent and will probably spend, in US dollars.

    Attributes:
        spent_usd: Everything spent, with the worst case of tries whose bill is unknown.
        unknown_usd: That worst case alone.
        tasks_usd: The part that went into tasks; None where none of them has a price.
        answers_usd: The part that went into answers; None where none of them has a price.
        projected_usd: What the whole will have cost when the target is reached; None while nothing tells.
        budget_usd: The cap, or None.
        unpriced_tries: Tries that had no price and so are in none of the sums.
    """

    spent_usd: float
    unknown_usd: float
    tasks_usd: float | None
    answers_usd: float | None
    projected_usd: float | None
    budget_usd: float | None
    unpriced_tries: int


def money(
    spending: Mapping[str, Mapping[str, float]],
    *,
    kept: int,
    requests: int,
    answered: int,
    target: int,
    budget_usd: float | None = None,
    answer_usd: float | None = None,
    foreseen: bool = True,
) -> Money:
    """Sum what was spent, and project it: what a request cost so far, times what is missing.

    Only bills that are known say what a request costs. Worst cases of tries whose bill is unknown count once, as
    spent; replies taken over from another folder count nothing.

    Args:
        spending: What :meth:`Ledger.spending` says.
        kept: Tasks kept so far.
        requests: Task requests that they were kept of.
        answered: Answers in.
        target: Tasks wanted.
        budget_usd: The cap in US dollars, or None.
        answer_usd: What one answer is expected to cost as long as none is paid, in US dollars.
        foreseen: Whether to project at all.

    Example:
        >>> spent = {"tasks": {"spent_usd": 2.0, "unknown_usd": 0.0, "unpriced": 0, "settled": 4}}
        >>> money(spent, kept=10, requests=4, answered=0, target=40, answer_usd=0.05).projected_usd
        10.0
    """
    by_stage = {stage: each["spent_usd"] + each["unknown_usd"] for stage, each in spending.items()}
    spent_usd = math.fsum(by_stage.values())
    missing_tasks, missing_answers = max(0, target - kept), max(0, target - answered)
    task_usd = mean_usd(spending, "tasks", None)
    per_task = task_usd * requests / kept if task_usd is not None and kept else None
    per_answer = mean_usd(spending, "answers", answer_usd)
    projected = None
    known = (per_task is not None or not missing_tasks) and (per_answer is not None or not missing_answers)
    if foreseen and kept and known:
        projected = spent_usd + (per_task or 0.0) * missing_tasks + (per_answer or 0.0) * missing_answers
    return Money(
        spent_usd=spent_usd,
        unknown_usd=math.fsum(each["unknown_usd"] for each in spending.values()),
        tasks_usd=_known_usd(spending, "tasks"),
        answers_usd=_known_usd(spending, "answers"),
        projected_usd=projected,
        budget_usd=budget_usd,
        unpriced_tries=round(sum(each["unpriced"] for each in spending.values())),
    )


def _known_usd(spending: Mapping[str, Mapping[str, float]], stage: str) -> float | None:
    sums = spending.get(stage)
    if sums is None:
        return 0.0
    usd = sums["spent_usd"] + sums["unknown_usd"]
    return None if sums["unpriced"] and not usd else usd


def mean_usd(
    spending: Mapping[str, Mapping[str, float]], stage: str, expected_usd: float | None
) -> float | None:
    """Return what a try of a stage that the service counted cost on average; what is expected where none was."""
    sums = spending.get(stage)
    return sums["spent_usd"] / sums["settled"] if sums and sums["settled"] else expected_usd


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
        budget: What is spent.
        target: Tasks wanted.
        answer_usd: What one answer is expected to cost as long as none is in, in US dollars.
        watch: Called at every step, or None.
    """

    def __init__(
        self, ledger: Ledger, budget: Budget, target: int, answer_usd: float | None, watch: Watch | None
    ) -> None:
        self._ledger, self._budget, self._watch = ledger, budget, watch
        self._target, self._answer_usd = target, answer_usd
        counts = ledger.counts()
        settled = {stage: each["answered"] + each["failed"] for stage, each in counts.items()}
        # Until these are judged anew, nobody knows what the money already spent has bought.
        self._tasks_before, self._answers_before = settled.get("tasks", 0), settled.get("answers", 0)
        self._noted_at_s = -math.inf

    def tell(self, progress: Progress, funnel: Callable[[], Mapping[str, Any]]) -> None:
        """Pass a step on; ``funnel`` is asked for the counts only when they are noted."""
        if self._watch is not None:
            money = self.money(progress)
            self._watch(dataclasses.replace(progress, tries=self._budget.tries_ended, money=money))
        if time.monotonic() - self._noted_at_s >= _SECONDS_BETWEEN_NOTES:
            self.note(funnel())

    def note(self, funnel: Mapping[str, Any]) -> None:
        """Note the counts in the ledger now, as at the end of a stage."""
        self._noted_at_s = time.monotonic()
        note_funnel(self._ledger, funnel)

    def answer_usd(self) -> float | None:
        """Return what one answer costs: the mean of those that are in, or what is expected; None without a price."""
        return mean_usd(self._budget.spending(), "answers", self._answer_usd)

    def money(self, progress: Progress) -> Money:
        """Return what is spent at a step, and what it will be in all once earlier replies are judged anew."""
        return money(
            self._budget.spending(),
            kept=progress.kept,
            requests=progress.requests,
            answered=max(progress.answered, self._answers_before),
            target=self._target,
            budget_usd=self._budget.budget_usd,
            answer_usd=self._answer_usd,
            foreseen=progress.stage != "tasks" or progress.requests >= self._tasks_before,
        )


def note_funnel(ledger: Ledger, funnel: Mapping[str, Any]) -> None:
    """Note how far the run is, for :func:`noted_funnel`."""
    ledger.note(_NOTE, json.dumps(funnel))


def noted_funnel(ledger: Ledger) -> dict[str, Any] | None:
    """Return the funnel that the run noted last, or None where it never did."""
    text = ledger.noted(_NOTE)
    return None if text is None else json.loads(text)


def unjudged(ledger: Ledger, funnel: Mapping[str, Any]) -> dict[str, Any]:
    """Count what is answered and paid, and in none of a funnel's counts: with these, totals of the ledger agree.

    Returns:
        ``beyond_target`` or, before the target is reached, ``waiting``: task requests and their tokens behind the
        last one that was judged; ``taken_over_usd``: what replies from another folder cost there. Each only where
        there is any.
    """
    behind = ledger.settled_behind("tasks", funnel["task_requests"])
    name = "beyond_target" if funnel["target_reached"] else "waiting"
    taken_usd = round(ledger.taken_over_usd(), 9)
    return ({name: behind} if behind["requests"] else {}) | (
        {"taken_over_usd": taken_usd} if taken_usd else {}
    )
