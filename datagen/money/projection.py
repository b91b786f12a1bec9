"""What a run has spent, and what it will probably cost in all."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from datagen.ledger import Ledger, Settled, StageSpending

UNJUDGED = ("beyond_target", "waiting", "taken_over_usd")
"""Fields of :class:`Money` that are left out of its JSON where there is nothing to say."""


@dataclasses.dataclass(frozen=True)
class Money:
    """What a run spent and will probably spend, in US dollars.

    Attributes:
        spent_usd: Everything spent, with the worst case of tries whose bill is unknown.
        unknown_usd: That worst case alone.
        tasks_usd: The part that went into tasks; None where none of them has a price.
        answers_usd: The part that went into answers; None where none of them has a price.
        projected_usd: Projected total when the target is reached; None while it cannot be estimated.
        budget_usd: The cap, or None.
        unpriced_tries: Tries without a price, which are in none of the sums.
        beyond_target: Task requests that were answered after the target was reached; None where there are none.
        waiting: Task requests that wait for an earlier one before they are judged; None where there are none.
        taken_over_usd: What replies taken over from another folder cost there; None where there are none.
    """

    spent_usd: float
    unknown_usd: float
    tasks_usd: float | None
    answers_usd: float | None
    projected_usd: float | None
    budget_usd: float | None
    unpriced_tries: int
    beyond_target: Settled | None = None
    waiting: Settled | None = None
    taken_over_usd: float | None = None

    @classmethod
    def project(
        cls,
        spending: Mapping[str, StageSpending],
        *,
        kept: int,
        requests: int,
        answered: int,
        target: int,
        budget_usd: float | None = None,
        answer_usd: float | None = None,
        foreseen: bool = True,
    ) -> Self:
        """Sum what was spent, and project the total: the cost per task and answer so far, times what is missing.

        The cost per request comes from known bills only. Worst cases of tries with an unknown bill count once, as
        spent; replies taken over from another folder cost nothing.

        Args:
            spending: As returned by :meth:`datagen.ledger.Ledger.spending`.
            kept: Tasks kept so far.
            requests: Task requests that they were kept of.
            answered: Answers received.
            target: Tasks wanted.
            budget_usd: The cap in US dollars, or None.
            answer_usd: Expected cost of one answer while none is paid, in US dollars.
            foreseen: Whether to project at all.

        Example:
            >>> spent = {"tasks": StageSpending(spent_usd=2.0, settled=4)}
            >>> Money.project(spent, kept=10, requests=4, answered=0, target=40, answer_usd=0.05).projected_usd
            10.0
        """
        by_stage: dict[str, float | None] = {}
        for stage, sums in spending.items():
            stage_usd = sums.spent_usd + sums.unknown_usd
            by_stage[stage] = None if sums.unpriced and not stage_usd else stage_usd
        spent_usd = math.fsum(usd or 0.0 for usd in by_stage.values())
        missing_tasks, missing_answers = max(0, target - kept), max(0, target - answered)
        request_usd = mean_usd(spending, "tasks", None)
        task_usd = request_usd * requests / kept if request_usd is not None and kept else None
        each_usd = mean_usd(spending, "answers", answer_usd)
        projected = None
        known = (task_usd is not None or not missing_tasks) and (each_usd is not None or not missing_answers)
        if foreseen and kept and known:
            projected = spent_usd + (task_usd or 0.0) * missing_tasks + (each_usd or 0.0) * missing_answers
        return cls(
            spent_usd=spent_usd,
            unknown_usd=math.fsum(sums.unknown_usd for sums in spending.values()),
            tasks_usd=by_stage.get("tasks", 0.0),
            answers_usd=by_stage.get("answers", 0.0),
            projected_usd=projected,
            budget_usd=budget_usd,
            unpriced_tries=sum(sums.unpriced for sums in spending.values()),
        )

    def with_unjudged(self, ledger: Ledger, task_requests: int, *, target_reached: bool) -> Self:
        """Return this with what is answered and paid, but not judged: with it, the totals of the ledger agree.

        Args:
            ledger: The run's ledger.
            task_requests: Task requests that were judged.
            target_reached: Whether the rest is beyond the target, or waits for an earlier reply.
        """
        found = ledger.settled_behind("tasks", task_requests)
        behind = found if found.requests else None
        return dataclasses.replace(
            self,
            beyond_target=behind if target_reached else None,
            waiting=None if target_reached else behind,
            taken_over_usd=round(ledger.taken_over_usd(), 9) or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the amounts for JSON, to the billionth of a dollar; the last three only where there are any."""
        return {
            name: round(value, 9) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
            if value is not None or name not in UNJUDGED
        }


def mean_usd(spending: Mapping[str, StageSpending], stage: str, expected_usd: float | None) -> float | None:
    """Return the mean cost of a stage's tries with a known bill; ``expected_usd`` where there are none."""
    sums = spending.get(stage)
    return sums.spent_usd / sums.settled if sums and sums.settled else expected_usd
