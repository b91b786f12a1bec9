"""Ending the batches of a work folder on demand."""

from pathlib import Path
from typing import Any

from datagen.batch.client import cancel_batches
from datagen.batch.store import described
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.questions import ANSWERS, TASKS
from datagen.settings import Settings
from datagen.work.folder import LEDGER, pinned_settings, refuse_lost


def cancel_all(settings: Settings, work: Path) -> list[dict[str, Any]]:
    """End every batch of a work folder that is under way, and bring in what it has done; nothing is sent.

    A batch that its provider does not know counts as spent at its worst case.

    Returns:
        The batches that were ended, as ``--status`` shows them.

    Raises:
        DataError: The folder is no work folder, or another process writes to it.
        ServiceError: The service cannot be reached.
    """
    pinned_settings(work)
    refuse_lost(work)
    services = {TASKS: settings.teacher, ANSWERS: settings.answerer}
    with Ledger(work / LEDGER) as ledger:
        budget = Budget(ledger, settings.all_prices(), settings.budget_usd)
        ended = cancel_batches(services, ledger, budget, settings.batch)
        budget.close()
    return [described(record) for record in ended]
