"""From seed tasks to published instructions: request tasks, filter them, and request their answers.

Apart from the two services, a run is a pure function of its settings: the examples in request i are drawn from
(seed, i), and replies are filtered in the order of their requests, not of their arrival. So neither the concurrency
nor an interruption changes the result, and the ledger is the whole state of a run.
"""

import dataclasses
import logging
from pathlib import Path

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
from datagen.synthesize.funnel import Funnel
from datagen.synthesize.pipeline import Pipeline, Progress, Watch, require_keys
from datagen.synthesize.reasons import why_none_kept, why_nothing
from datagen.synthesize.status import Status, status
from datagen.task_filter import TaskFilter, filter_answers
from datagen.work.asking import take_up_batches
from datagen.work.folder import LEDGER, pin, refuse_foreign

__all__ = ["Funnel", "Progress", "Status", "Watch", "status", "synthesize"]

log = logging.getLogger(__name__)


def synthesize(
    settings: Settings,
    work: Path,
    *,
    retry_failed: bool = False,
    wait: bool = True,
    watch: Watch | None = None,
) -> Funnel:
    """Run both stages and write the results, or resume an earlier run of the same folder.

    Args:
        settings: The settings of the run.
        work: The work folder: ``ledger.sqlite``, ``config.json``, ``seeds.jsonl`` (a copy), then ``tasks.jsonl``,
            ``rejected.jsonl``, ``instructions.jsonl`` and ``funnel.json``.
        retry_failed: Send the failed requests of an earlier run again.
        wait: In batch mode, wait for replies; otherwise return once everything that can be sent has been sent.
        watch: Called after each filtered reply.

    Returns:
        The counts of requests, tasks and answers at each step, as in ``funnel.json``.

    Raises:
        BatchesUnderWay: Batches are under way, and ``wait`` is False.
        ServiceError: The service refuses or cannot be reached; what was answered is kept.
        DataError: The work folder contains other files, a seed task is invalid, or no task was kept.
    """
    seeds = read_seeds(settings)
    prices = settings.all_prices()
    refuse_foreign(work)
    if not (work / LEDGER).exists():
        require_keys(settings)
    for warning in [*odd_labels(settings.seeds), *leaking_seeds(settings, seeds)]:
        log.warning("seeds: %s", warning)
    with Ledger(work / LEDGER) as ledger:
        pin(work, settings, seeds, prompts.PROMPT_VERSION, began=ledger.began())
        budget = Budget(ledger, prices, settings.budget_usd)
        pipeline = Pipeline(settings, seeds, ledger, budget, wait=wait, watch=watch)
        if retry_failed:
            ledger.reopen(TASKS)
            ledger.reopen(ANSWERS)
        take_up_batches({TASKS: settings.teacher, ANSWERS: settings.answerer}, ledger, settings, budget)
        reached = pipeline.tasks()
        tasks = pipeline.task_filter
        # Files of an earlier, finished run stay as they are until this one has finished too.
        if not (work / "funnel.json").exists():
            results.write_tasks(work, tasks.kept, tasks.rejected)
        if not tasks.kept:
            raise reached or _none_was_kept(work, tasks)
        replies, reached = _have_answered(pipeline, reached)
        answers = filter_answers(tasks.kept, replies, settings)
        budget.close()
        money = pipeline.money(answers.replies)
        funnel = dataclasses.replace(
            Funnel.count(tasks, answers, settings),
            budget_reached=reached is not None or "budget" in answers.failed,
            money=money.with_unjudged(ledger, tasks.requests, target_reached=tasks.full),
            nothing_published=None if answers.instructions else why_nothing(answers),
            **results.write_reports(
                work, settings, answers.instructions, [*tasks.rejected, *answers.rejected]
            ),
        )
        results.write_all(work, tasks.kept, tasks.rejected, answers, funnel.to_dict())
        funnel.note(ledger)
        if left := BatchStore(ledger).under_way():
            log.warning("not needed any more, and ended by --cancel-batches: %s", describe(left))
    return funnel


def _have_answered(
    pipeline: Pipeline, reached: BudgetReached | None
) -> tuple[list[Reply], BudgetReached | None]:
    """Request answers to all kept tasks; spend the rest of a reached budget on further tasks and answers."""
    replies = pipeline.answers()
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
