"""The progress of a work folder, also while a run is writing to it."""

import dataclasses
from pathlib import Path
from typing import Any

from datagen.batch.store import BatchStore, described
from datagen.errors import ConfigError, DataError
from datagen.ledger import Ledger
from datagen.money.projection import UNJUDGED, Money
from datagen.questions import ANSWERS, TASKS, read_seeds
from datagen.settings import BATCH, Settings
from datagen.synthesize.funnel import Funnel
from datagen.work.estimate import expected_answer_usd
from datagen.work.folder import LEDGER, recorded_settings, refuse_lost
from datagen.work.replay import replay


@dataclasses.dataclass(frozen=True)
class Status:
    """The progress of a run.

    Attributes:
        funnel: Its counts so far, with the money spent.
        ledger: The counts of :meth:`Ledger.counts`.
        batches: One row for each batch.
        answers_unjudged: Answers received but not filtered yet; they are filtered when all are received.
    """

    funnel: Funnel
    ledger: dict[str, dict[str, int]]
    batches: list[dict[str, Any]]
    answers_unjudged: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON in one mapping: the keys of the funnel and the other fields."""
        funnel = self.funnel.to_dict()
        unjudged = {key: each for key, each in funnel["money"].items() if key in UNJUDGED}
        return {
            **funnel,
            "ledger": self.ledger,
            "batches": self.batches,
            "answers_unjudged": self.answers_unjudged,
            **unjudged,
        }


def status(work: Path) -> Status:
    """Summarise a work folder, also while a run writes to it; changes nothing.

    The counts of tasks are those that the run recorded last, at most about a second ago; a ledger without recorded
    counts is replayed.

    Raises:
        DataError: The folder is not the work folder of a synthesis run, or its ledger is missing.
    """
    settings = recorded_settings(work)
    refuse_lost(work)
    with Ledger(work / LEDGER, read_only=True) as ledger:
        funnel = Funnel.noted(ledger)
        if funnel is None:
            funnel = Funnel.count(*replay(ledger, settings, read_seeds(settings)), settings)
        counts = ledger.counts()
        answered = counts.get(ANSWERS, {"answered": 0})["answered"]
        running = funnel.money is None  # answers are filtered when all are received
        unjudged = max(0, answered - funnel.answer_replies) if running else 0
        settled = sum(counts.get(TASKS, {}).get(state, 0) for state in ("answered", "failed"))
        # A resumed run filters the recorded replies again; after that, only replies out of order are not filtered.
        judged = funnel.task_requests + settings.teacher.concurrency >= settled
        money = Money.project(
            ledger.spending(),
            kept=funnel.tasks_kept,
            requests=funnel.task_requests,
            answered=answered,
            target=settings.target,
            budget_usd=settings.budget_usd,
            answer_usd=_expected_answer_usd(settings),
            foreseen=funnel.target_reached or settings.mode == BATCH or judged,
        ).with_unjudged(ledger, funnel.task_requests, target_reached=funnel.target_reached)
        funnel = dataclasses.replace(funnel, money=money, answer_replies=funnel.answer_replies + unjudged)
        return Status(funnel, counts, [described(record) for record in BatchStore(ledger).all()], unjudged)


def _expected_answer_usd(settings: Settings) -> float | None:
    """Return the expected cost of one answer; None also if the file of seeds or prices no longer exists."""
    try:
        return expected_answer_usd(settings, read_seeds(settings), settings.all_prices())
    except (ConfigError, DataError):
        return None
