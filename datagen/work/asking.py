"""Sending requests in the mode that the settings name (live or batch), and switching between the two."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datagen.batch.client import cancel_batches, collect_batches, complete_in_batches
from datagen.batch.store import BatchStore, described
from datagen.client import ChatRequest, Reply, Service, complete
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.questions import ANSWERS, TASKS
from datagen.settings import BATCH, Settings, Terms
from datagen.work.folder import LEDGER, pinned_settings, refuse_lost


def ask_all(
    requests: Sequence[ChatRequest],
    service: Service,
    ledger: Ledger,
    terms: Terms,
    budget: Budget,
    *,
    stage: str,
    wait: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Reply]:
    """Ask all requests and return their replies in the order of the requests.

    Args:
        requests: What to ask; ids must differ.
        service: Where to ask.
        ledger: Records every outcome; requests with a recorded outcome are not sent again.
        terms: Whether to ask live or in batches, and the limits of batches.
        budget: Reserves the worst case of every try and records its cost.
        stage: The ledger's stage.
        wait: In batch mode, wait for replies; otherwise return once everything that can be sent has been sent.
        progress: Called with (settled, total).

    Raises:
        BatchesUnderWay: Batches are under way, and ``wait`` is False.
        ServiceError: The service refuses all requests or cannot be reached, or the budget is reached.
        DataError: The ledger has a different prompt under the same id.
    """
    if terms.mode == BATCH:
        return complete_in_batches(
            requests,
            service,
            ledger,
            stage=stage,
            budget=budget,
            limits=terms.batch,
            wait=wait,
            progress=progress,
        )
    return complete(requests, service, ledger, stage=stage, progress=progress, budget=budget)


def take_up_batches(services: Mapping[str, Service], ledger: Ledger, terms: Terms, budget: Budget) -> None:
    """Before live requests, collect the replies of an earlier run's batches.

    Args:
        services: The service of each stage.
        ledger: The ledger.
        terms: As for :func:`ask_all`.
        budget: The ledger's budget.

    Raises:
        DataError: Batches are still under way; their requests would be paid for twice.
        ServiceError: The service does not report the state of the batches.
    """
    if terms.mode != BATCH and BatchStore(ledger).under_way():
        collect_batches(services, ledger, budget, terms.batch)


def cancel_all(settings: Settings, work: Path) -> list[dict[str, Any]]:
    """Cancel every batch of a work folder that is under way and collect its finished replies; nothing is sent.

    A batch that its provider does not know counts as spent at its worst case.

    Returns:
        The cancelled batches, as ``--status`` shows them.

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
