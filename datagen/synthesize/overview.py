"""How far a work folder is, for whoever looks at it beside a run."""

import dataclasses
from pathlib import Path
from typing import Any

from datagen.batch.store import BatchStore, described
from datagen.errors import ConfigError, DataError
from datagen.ledger import Ledger
from datagen.questions import ANSWERS, TASKS, read_seeds
from datagen.settings import BATCH, Settings
from datagen.synthesize.funnel import count
from datagen.work.estimate import expected_answer_usd
from datagen.work.folder import LEDGER, recorded_settings, refuse_lost
from datagen.work.replay import replay
from datagen.work.status import money, noted_funnel, unjudged


def status(work: Path) -> dict[str, Any]:
    """Summarise a work folder, also while a run writes to it; changes nothing.

    The counts of tasks are those that the run noted last, at most about a second ago; a ledger without such a note
    is judged anew.

    Returns:
        The funnel as far as it is known; ``ledger``, the counts of :meth:`Ledger.counts`; ``batches``, one row for
        each; and ``money``, as in the funnel, where the ledger keeps an account.

    Raises:
        DataError: The folder is not the work folder of a synthesis run, or its ledger is gone.
    """
    settings = recorded_settings(work)
    refuse_lost(work)
    with Ledger(work / LEDGER, read_only=True) as ledger:
        funnel = noted_funnel(ledger) or count(*replay(ledger, settings, read_seeds(settings)), settings)
        counts = ledger.counts()
        batches = [described(record) for record in BatchStore(ledger).all()]
        spending = ledger.spending()
        answered = counts.get(ANSWERS, {"answered": 0})["answered"]
        known = funnel | {"ledger": counts, "batches": batches} | unjudged(ledger, funnel)
        if "money" not in funnel:  # under way: answers are judged when all are in
            known |= {"answer_replies": max(answered, funnel["answer_replies"])}
            known |= {"answers_unjudged": known["answer_replies"] - funnel["answer_replies"]}
        if not spending:
            return known
        settled = sum(counts.get(TASKS, {}).get(state, 0) for state in ("answered", "failed"))
        # A run that goes on judges what is there anew; only replies out of turn can be ahead of it after that.
        judged = funnel["task_requests"] + settings.teacher.concurrency >= settled
        spent = money(
            spending,
            kept=funnel["tasks_kept"],
            requests=funnel["task_requests"],
            answered=answered,
            target=settings.target,
            budget_usd=settings.budget_usd,
            answer_usd=_expected_answer_usd(settings),
            foreseen=funnel["target_reached"] or settings.mode == BATCH or judged,
        )
        return known | {"money": dataclasses.asdict(spent)}


def _expected_answer_usd(settings: Settings) -> float | None:
    """Return what one answer is expected to cost; None also where seeds or prices are no longer where they were."""
    try:
        return expected_answer_usd(settings, read_seeds(settings), settings.all_prices())
    except (ConfigError, DataError):
        return None
