"""From seed tasks to published instructions: ask for tasks, keep the good and new ones, have them answered.

Everything but the two services is a pure function of the settings: request i shows examples drawn from (seed,
i), and replies are judged in the order of their requests, not of their arrival. So neither the concurrency
nor an interruption changes the result, and the state of a run is nothing but its ledger.
"""

import logging
from pathlib import Path
from typing import Any

from datagen import prompts, results
from datagen.batch.client import describe
from datagen.batch.store import BatchStore
from datagen.client import Reply
from datagen.errors import DataError
from datagen.ledger import Ledger
from datagen.money.budget import Budget, BudgetReached
from datagen.questions import ANSWERS, TASKS, read_seeds
from datagen.safety import leaking_seeds
from datagen.seeds import odd_labels
from datagen.settings import Settings
from datagen.synthesize.funnel import account, count, why_none_kept, why_nothing
from datagen.synthesize.overview import status
from datagen.synthesize.pipeline import Pipeline
from datagen.task_filter import TaskFilter, filter_answers
from datagen.work.asking import take_up_batches
from datagen.work.estimate import expected_answer_usd
from datagen.work.folder import LEDGER, pin, refuse_foreign
from datagen.work.keys import require_keys
from datagen.work.status import Reporter, Watch, unjudged

__all__ = ["count", "status", "synthesize"]

log = logging.getLogger(__name__)


def synthesize(
    settings: Settings,
    work: Path,
    *,
    retry_failed: bool = False,
    wait: bool = True,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Run both stages and publish, or go on where an earlier run of the same folder stopped.

    Args:
        settings: What to do.
        work: The work folder: ``ledger.sqlite``, ``config.json``, ``seeds.jsonl`` (a copy), then ``tasks.jsonl``,
            ``rejected.jsonl``, ``instructions.jsonl`` and ``funnel.json``.
        retry_failed: Ask again what an earlier run gave up on.
        wait: In batch mode, wait for replies; otherwise leave as soon as everything that can be sent is under way.
        watch: Called whenever a reply has been judged.

    Returns:
        The funnel, as in ``funnel.json``.

    Raises:
        BatchesUnderWay: Nothing more can be done without waiting.
        ServiceError: The service refuses or cannot be reached; what was answered is kept.
        DataError: The work folder belongs to something else, a seed is broken, or no task was kept.
    """
    seeds = read_seeds(settings)
    prices = settings.all_prices()
    refuse_foreign(work)
    if not (work / LEDGER).exists():
        require_keys(settings)
    for odd in odd_labels(settings.seeds):
        log.warning("seeds: %s", odd)
    for leak in leaking_seeds(settings, seeds):
        log.warning("seeds: %s", leak)
    with Ledger(work / LEDGER) as ledger:
        pin(work, settings, seeds, prompts.PROMPT_VERSION, began=ledger.began())
        budget = Budget(ledger, prices, settings.budget_usd)
        answer_usd = expected_answer_usd(settings, seeds, prices)
        reporter = Reporter(ledger, budget, settings.target, answer_usd, watch)
        _take_up(settings, ledger, budget, retry_failed=retry_failed)
        task_filter = TaskFilter(seeds, settings)
        pipeline = Pipeline(settings, seeds, ledger, budget, reporter, task_filter, wait)
        reached = pipeline.tasks()
        # Files of an earlier, finished run stay as they are until this one has finished too.
        if not (work / "funnel.json").exists():
            results.write_tasks(work, task_filter.kept, task_filter.rejected)
        if not task_filter.kept:
            raise reached or _none_was_kept(work, task_filter)
        replies, reached = _have_answered(pipeline, reached)
        outcome = filter_answers(task_filter.kept, replies, settings)
        budget.close()
        funnel = count(task_filter, outcome, settings) | {
            "budget_reached": reached is not None or "budget" in outcome.failed,
            "money": account(ledger, settings, task_filter, outcome.replies),
        }
        funnel["money"] |= unjudged(ledger, funnel)
        if not outcome.instructions:
            funnel["nothing_published"] = why_nothing(outcome)
        funnel |= results.write_reports(
            work, settings, outcome.instructions, [*task_filter.rejected, *outcome.rejected]
        )
        results.write_all(work, task_filter.kept, task_filter.rejected, outcome, funnel)
        reporter.note(funnel)
        if left := BatchStore(ledger).under_way():
            log.warning("not needed any more, and ended by --cancel-batches: %s", describe(left))
    return funnel


def _take_up(settings: Settings, ledger: Ledger, budget: Budget, *, retry_failed: bool) -> None:
    """Go on where an earlier run stopped: with what failed, if so asked, and with what ended batches hold."""
    if retry_failed:
        ledger.reopen(TASKS)
        ledger.reopen(ANSWERS)
    services = {TASKS: settings.teacher, ANSWERS: settings.answerer}
    take_up_batches(services, ledger, settings, budget)


def _have_answered(
    pipeline: Pipeline, reached: BudgetReached | None
) -> tuple[list[Reply], BudgetReached | None]:
    """Return the answers to all kept tasks, also to further ones, and what says that the budget is reached, if so."""
    replies = pipeline.answers()
    # Answers mostly cost less than was set aside for them; what is left buys further tasks.
    while reached is not None:
        before = pipeline.task_filter.requests
        reached = pipeline.tasks()
        if pipeline.task_filter.requests == before:
            break
        replies = pipeline.answers()
    return replies, reached


def _none_was_kept(work: Path, task_filter: TaskFilter) -> DataError:
    reasons, remedy = why_none_kept(task_filter)
    return DataError(
        "no task was kept",
        where=work / "rejected.jsonl",
        found=f"{task_filter.requests} requests, {sum(task_filter.failed.values())} of them failed, "
        f"{len(task_filter.rejected)} tasks rejected: {reasons}",
        expected="replies in the form the prompt asks for",
        remedy=remedy,
    )
