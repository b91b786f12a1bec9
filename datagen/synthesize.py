"""From seed tasks to published instructions: ask for tasks, keep the good and new ones, have them answered.

Everything but the two services is a pure function of the settings: request i shows examples drawn from (seed,
i), and replies are judged in the order of their requests, not of their arrival. So neither the concurrency
nor an interruption changes the result, and the state of a run is nothing but its ledger.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from datagen import prompts, publish
from datagen.batch.asking import collect_batches, complete_in_batches, describe, stream_in_batches
from datagen.batch.book import BatchBook, described
from datagen.client import Reply, Service, complete, read_reply, stream
from datagen.errors import ConfigError, DataError
from datagen.ledger import Ledger
from datagen.money.purse import BudgetReached, Purse
from datagen.questions import ANSWERS, TASKS, answer_request, read_seeds, task_requests
from datagen.records import SeedTask
from datagen.safety import leaking_seeds, write_reports
from datagen.seeds import odd_labels
from datagen.settings import BATCH, Settings
from datagen.sieve import Sieve, answer_checks
from datagen.work.estimate import expected_answer_usd
from datagen.work.folder import LEDGER, pin, recorded_settings, refuse_foreign, refuse_lost
from datagen.work.keys import require_keys, with_keys
from datagen.work.replay import replay
from datagen.work.status import Progress, Reporter, Watch, money, noted_funnel, unjudged

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
        purse = Purse(ledger, prices, settings.budget_usd)
        answer_usd = expected_answer_usd(settings, seeds, prices)
        reporter = Reporter(ledger, purse, settings.target, answer_usd, watch)
        if retry_failed:
            ledger.reopen(TASKS)
            ledger.reopen(ANSWERS)
        if settings.mode != BATCH and BatchBook(ledger).under_way():
            collect_batches(services(settings), ledger, purse, settings.batch)
        sieve = Sieve(seeds, settings)
        reached = asyncio.run(_gather_tasks(settings, seeds, ledger, purse, reporter, wait, sieve))
        # Files of an earlier, finished run stay as they are until this one has finished too.
        if not (work / "funnel.json").exists():
            publish.write_tasks(work, sieve.kept, sieve.rejected)
        if not sieve.kept:
            if reached is not None:
                raise reached
            raise DataError(
                "no task was kept",
                where=work / "rejected.jsonl",
                found=f"{sieve.requests} requests, {sum(sieve.failed.values())} of them failed, "
                f"{len(sieve.rejected)} tasks rejected",
                expected="replies in the form the prompt asks for",
                remedy="read the reasons in rejected.jsonl; a stronger teacher or larger max_tokens may help",
            )
        replies = _gather_answers(settings, sieve, ledger, purse, reporter, wait)
        # Answers mostly cost less than was set aside for them; what is left buys further tasks.
        while reached is not None:
            before = sieve.requests
            reached = asyncio.run(_gather_tasks(settings, seeds, ledger, purse, reporter, wait, sieve))
            if sieve.requests == before:
                break
            replies = _gather_answers(settings, sieve, ledger, purse, reporter, wait)
        outcome = publish.settle(sieve.kept, replies, prompts.PROMPT_VERSION, answer_checks(settings))
        purse.close()
        funnel = count(sieve, outcome, settings) | {
            "budget_reached": reached is not None or "budget" in outcome.failed,
            "money": _money(ledger, settings, sieve, outcome.replies),
        }
        funnel["money"] |= unjudged(ledger, funnel)
        funnel |= write_reports(work, settings, outcome.instructions, [*sieve.rejected, *outcome.rejected])
        publish.write_all(work, sieve.kept, sieve.rejected, outcome, funnel)
        reporter.note(funnel)
        if left := BatchBook(ledger).under_way():
            log.warning("not needed any more, and ended by --cancel-batches: %s", describe(left))
    return funnel


def services(settings: Settings) -> dict[str, Service]:
    """Return the service of each stage."""
    return {TASKS: settings.teacher, ANSWERS: settings.answerer}


async def _gather_tasks(
    settings: Settings,
    seeds: Sequence[SeedTask],
    ledger: Ledger,
    purse: Purse,
    reporter: Reporter,
    wait: bool,
    sieve: Sieve,
) -> BudgetReached | None:
    """Ask for tasks until the sieve has enough; where the budget ends that, return what says so."""
    answered = ledger.counts().get(ANSWERS, {"answered": 0})["answered"]
    _keep_for_answers(settings, sieve, answered, purse, reporter)
    reached = None

    def answers_usd() -> float:
        return sieve.kept_of_a_request() * (reporter.answer_usd() or 0.0)

    replies = _task_replies(settings, seeds, ledger, purse, wait, sieve, answers_usd)
    try:
        async with contextlib.aclosing(replies):
            async for reply in replies:
                sieve.take(reply)
                _keep_for_answers(settings, sieve, answered, purse, reporter)
                progress = dataclasses.replace(_progress(sieve, settings), answered=answered)
                reporter.tell(progress, lambda: count(sieve, publish.Outcome(), settings))
                if sieve.full:
                    break
    except BudgetReached as error:
        reached = error
        _take_settled(sieve, ledger, settings)
    finally:
        reporter.note(count(sieve, publish.Outcome(), settings))
    return reached


def _task_replies(
    settings: Settings,
    seeds: Sequence[SeedTask],
    ledger: Ledger,
    purse: Purse,
    wait: bool,
    sieve: Sieve,
    answers_usd: Callable[[], float],
) -> AsyncGenerator[Reply, None]:
    """Return the stream of replies behind those that the sieve has taken, live or through batches.

    A batch is paid for as a whole, so it leaves what the answers to its tasks are expected to cost.
    """
    missing = islice(task_requests(settings, seeds), sieve.requests, None)
    requests = with_keys(missing, settings, ledger, TASKS)
    if settings.mode == BATCH:
        return stream_in_batches(
            requests,
            settings.teacher,
            ledger,
            stage=TASKS,
            wanted=lambda ahead: _requests_wanted(settings, seeds, ledger, sieve, ahead),
            purse=purse,
            limits=settings.batch,
            wait=wait,
            leave_usd=answers_usd,
        )
    window = None if settings.eager else sieve.requests_wanted
    return stream(requests, settings.teacher, ledger, stage=TASKS, window=window, purse=purse)


def _requests_wanted(
    settings: Settings, seeds: Sequence[SeedTask], ledger: Ledger, sieve: Sieve, ahead: Sequence[Reply]
) -> int:
    """Estimate how many requests the target still needs, with replies that are in but cannot be judged yet."""
    if not ahead:
        return sieve.requests_wanted()
    trial = Sieve(seeds, settings)
    for number in range(sieve.requests):
        entry = ledger.get(TASKS, f"{number:06d}")
        assert entry is not None
        trial.take(read_reply(entry))
    for reply in ahead:
        trial.take(reply)
    return 0 if trial.full else trial.requests_wanted()


def _keep_for_answers(
    settings: Settings, sieve: Sieve, answered: int, purse: Purse, reporter: Reporter
) -> None:
    """Keep enough of a budget to have the kept tasks answered, instead of spending all of it on more tasks."""
    waiting = len(sieve.kept) - answered
    if purse.budget_usd is None:
        return
    if waiting <= 0:
        purse.set_aside(ANSWERS, 0.0)
        return
    last = answer_request(settings, sieve.kept[-1]).body(settings.answerer.model)
    one_in_flight = purse.worst_usd(settings.answerer.model, last, batch=settings.mode == BATCH)
    purse.set_aside(ANSWERS, waiting * (reporter.answer_usd() or 0.0) + one_in_flight)


def _take_settled(sieve: Sieve, ledger: Ledger, settings: Settings) -> None:
    """Judge the replies behind the one at which a run stopped; they are paid for."""
    while not sieve.full and sieve.requests < settings.request_limit():
        entry = ledger.get(TASKS, f"{sieve.requests:06d}")
        if entry is None or entry.state == "sent":
            return
        sieve.take(read_reply(entry))


def _gather_answers(
    settings: Settings, sieve: Sieve, ledger: Ledger, purse: Purse, reporter: Reporter, wait: bool
) -> list[Reply]:
    """Have the kept tasks answered; those for which the budget does not suffice are said to have failed for it."""
    before = _progress(sieve, settings)

    def tell(settled: int, total: int) -> None:
        progress = dataclasses.replace(before, stage=ANSWERS, target=total, answered=settled)
        reporter.tell(progress, lambda: count(sieve, publish.Outcome(), settings))

    requests = [answer_request(settings, kept) for kept in sieve.kept]
    try:
        if settings.mode == BATCH:
            return complete_in_batches(
                requests,
                settings.answerer,
                ledger,
                stage=ANSWERS,
                purse=purse,
                limits=settings.batch,
                wait=wait,
                progress=tell,
            )
        return complete(requests, settings.answerer, ledger, stage=ANSWERS, progress=tell, purse=purse)
    except BudgetReached:
        replies = []
        for request in requests:
            entry = ledger.get(ANSWERS, request.id)
            if entry is None or entry.state == "sent":
                replies.append(
                    Reply(request.id, "", "", "", 0, 0, error="budget: not asked, to keep the cap")
                )
            else:
                replies.append(read_reply(entry))
        return replies


def _progress(sieve: Sieve, settings: Settings) -> Progress:
    return Progress(TASKS, sieve.requests, len(sieve.kept), len(sieve.rejected), settings.target)


def _money(ledger: Ledger, settings: Settings, sieve: Sieve, answered: int) -> dict[str, Any]:
    """Account for everything the ledger spent, to the billionth of a dollar."""
    kept, target = len(sieve.kept), settings.target
    spent = money(
        ledger.spending(),
        kept=kept,
        requests=sieve.requests,
        answered=answered,
        target=target,
        budget_usd=settings.budget_usd,
    )
    return {
        name: round(value, 9) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(spent).items()
    }


def count(sieve: Sieve, outcome: publish.Outcome, settings: Settings) -> dict[str, Any]:
    """Count what became of every request, task and answer; each level adds up to the one before."""
    reasons = Counter(row["reason"] for row in sieve.rejected)
    unfit = Counter(row["reason"] for row in outcome.rejected if "error" not in row)
    return {
        "target": settings.target,
        "target_reached": sieve.full,
        "task_requests": sieve.requests,
        "task_replies": sieve.replies,
        "task_requests_failed": dict(sorted(sieve.failed.items())),
        "tasks_found": sieve.found,
        "tasks_rejected": dict(sorted(reasons.items())),
        "tasks_kept": len(sieve.kept),
        "answer_requests": len(sieve.kept),
        "answer_replies": outcome.replies,
        "answer_requests_failed": dict(sorted(outcome.failed.items())),
        "answers_rejected": dict(sorted(unfit.items())),
        "instructions": len(outcome.instructions),
        "prompt_tokens": sieve.prompt_tokens + outcome.prompt_tokens,
        "completion_tokens": sieve.completion_tokens + outcome.completion_tokens,
    }


def _expected_answer_usd(settings: Settings) -> float | None:
    """Return what one answer is expected to cost; None also where seeds or prices are no longer where they were."""
    try:
        return expected_answer_usd(settings, read_seeds(settings), settings.all_prices())
    except (ConfigError, DataError):
        return None


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
        batches = [described(record) for record in BatchBook(ledger).all()]
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
