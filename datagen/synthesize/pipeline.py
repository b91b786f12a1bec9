"""Both stages of a run: request tasks and filter them, then request answers to the kept tasks."""

import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import islice

from datagen.batch.client import stream_in_batches
from datagen.client import ChatRequest, Reply, read_reply, run_coroutine, stream
from datagen.errors import ServiceError
from datagen.ledger import Ledger
from datagen.money.budget import Budget, BudgetReached
from datagen.money.projection import Money, mean_usd
from datagen.questions import ANSWERS, TASKS, answer_request, task_requests
from datagen.records import SeedTask
from datagen.settings import BATCH, Settings
from datagen.synthesize.funnel import Funnel
from datagen.task_filter import FilteredAnswers, TaskFilter
from datagen.work.asking import ask_all
from datagen.work.estimate import expected_answer_usd
from datagen.work.replay import take_settled

_SECONDS_BETWEEN_NOTES = 1.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a run: finished requests, kept and rejected tasks, the target, answers, tries and cost."""

    stage: str
    requests: int
    kept: int
    rejected: int
    target: int
    answered: int = 0
    tries: int = 0
    money: Money | None = None


Watch = Callable[[Progress], None]


def require_keys(settings: Settings) -> None:
    """Check that the API keys of both services are set.

    Raises:
        ServiceError: A key is missing; the remedy names the option for it.
    """
    settings.teacher.api_key()
    try:
        settings.answerer.api_key()
    except ServiceError as error:
        error.remedy = (error.remedy or "").replace("`api_key_env`", "`answerer.api_key_env`")
        raise


class Pipeline:
    """Sends the requests of a run, live or in batches; more tasks may be requested after the answers.

    Args:
        settings: The settings of the run.
        seeds: The seed tasks.
        ledger: Records every outcome, and the progress of the run about once a second.
        budget: Enforces the budget.
        wait: In batch mode, wait for replies.
        watch: Called after each filtered reply, or None.
    """

    def __init__(
        self,
        settings: Settings,
        seeds: Sequence[SeedTask],
        ledger: Ledger,
        budget: Budget,
        *,
        wait: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self.settings, self.seeds, self.ledger, self.budget = settings, seeds, ledger, budget
        self.wait, self.watch = wait, watch
        #: Filters the replies with tasks, in the order of the requests.
        self.task_filter = TaskFilter(seeds, settings)
        self._expected_answer_usd = expected_answer_usd(settings, seeds, budget.prices)
        counts = ledger.counts()
        settled = {stage: each["answered"] + each["failed"] for stage, each in counts.items()}
        # Until these are filtered again, the number of kept tasks for the money already spent is unknown.
        self._tasks_before, self._answers_before = settled.get(TASKS, 0), settled.get(ANSWERS, 0)
        self._noted_at_s = -math.inf

    def tasks(self) -> BudgetReached | None:
        """Request tasks until the target is reached; return the error if the budget ends first.

        Raises:
            BatchesUnderWay: Batches are under way, and ``wait`` is False.
            ServiceError: The service refuses requests or cannot be reached; all replies so far are kept.
        """
        return run_coroutine(self._take_tasks())

    async def _take_tasks(self) -> BudgetReached | None:
        answered = self.ledger.counts().get(ANSWERS, {"answered": 0})["answered"]
        self._keep_for_answers(answered)
        try:
            async with contextlib.aclosing(self._task_replies()) as replies:
                async for reply in replies:
                    self.task_filter.take(reply)
                    self._keep_for_answers(answered)
                    self._tell(TASKS, answered, self.settings.target)
                    if self.task_filter.full:
                        break
        except BudgetReached as reached:
            # Later replies that have already been received are paid for.
            take_settled(self.task_filter, self.settings, lambda id: self.ledger.settled(TASKS, id))
            return reached
        finally:
            self._note()
        return None

    def _task_replies(self) -> AsyncGenerator[Reply, None]:
        """Return the stream of replies that are not filtered yet, live or from batches.

        A batch is paid for as a whole, so the expected cost of answers to its tasks is reserved.
        """
        settings, requests = self.settings, self._task_requests()
        if settings.mode == BATCH:
            return stream_in_batches(
                requests,
                settings.teacher,
                self.ledger,
                stage=TASKS,
                wanted=self._requests_wanted,
                budget=self.budget,
                limits=settings.batch,
                wait=self.wait,
                leave_usd=lambda: self.task_filter.kept_of_a_request() * self._answer_usd(),
            )
        window = None if settings.eager else self.task_filter.requests_wanted
        return stream(requests, settings.teacher, self.ledger, stage=TASKS, window=window, budget=self.budget)

    def _task_requests(self) -> Iterator[ChatRequest]:
        """Yield the requests whose replies are not filtered yet; check the keys before the first one to be sent."""
        found_keys = False
        for request in islice(task_requests(self.settings, self.seeds), self.task_filter.requests, None):
            if not found_keys and self.ledger.settled(TASKS, request.id) is None:
                require_keys(self.settings)
                found_keys = True
            yield request

    def _requests_wanted(self, ahead: Sequence[Reply]) -> int:
        """Estimate how many more requests the target needs, given replies received out of order."""
        if not ahead:
            return self.task_filter.requests_wanted()
        trial = TaskFilter(self.seeds, self.settings)
        for number in range(self.task_filter.requests):
            entry = self.ledger.settled(TASKS, f"{number:06d}")
            assert entry is not None
            trial.take(read_reply(entry))
        for reply in ahead:
            trial.take(reply)
        return 0 if trial.full else trial.requests_wanted()

    def _keep_for_answers(self, answered: int) -> None:
        """Reserve enough of the budget for answers to the kept tasks."""
        if self.budget.budget_usd is None:
            return
        waiting = len(self.task_filter.kept) - answered
        if waiting <= 0:
            self.budget.set_aside(ANSWERS, 0.0)
            return
        model = self.settings.answerer.model
        last = answer_request(self.settings, self.task_filter.kept[-1]).body(model)
        one_in_flight = self.budget.worst_usd(model, last, batch=self.settings.mode == BATCH)
        self.budget.set_aside(ANSWERS, waiting * self._answer_usd() + one_in_flight)

    def _answer_usd(self) -> float:
        """Return the mean cost of the answers so far, or the expected cost before the first; 0 without a price."""
        return mean_usd(self.budget.spending(), ANSWERS, self._expected_answer_usd) or 0.0

    def answers(self) -> list[Reply]:
        """Request answers to the kept tasks; those beyond the budget fail with the reason "budget".

        Raises:
            BatchesUnderWay: Batches are under way, and ``wait`` is False.
            ServiceError: The service refuses requests or cannot be reached; all replies so far are kept.
        """
        requests = [answer_request(self.settings, kept) for kept in self.task_filter.kept]
        try:
            return ask_all(
                requests,
                self.settings.answerer,
                self.ledger,
                self.settings,
                self.budget,
                stage=ANSWERS,
                wait=self.wait,
                progress=lambda settled, total: self._tell(ANSWERS, settled, total),
            )
        except BudgetReached:
            return [self._answer_or_none(request) for request in requests]

    def _answer_or_none(self, request: ChatRequest) -> Reply:
        entry = self.ledger.settled(ANSWERS, request.id)
        if entry is None:
            return Reply(request.id, "", "", "", 0, 0, error="budget: not sent, the budget is reached")
        return read_reply(entry)

    def _tell(self, stage: str, answered: int, target: int) -> None:
        """Report progress to the callback, and about once a second in the ledger."""
        tasks = self.task_filter
        if self.watch is not None:
            money = self.money(
                max(answered, self._answers_before),
                answer_usd=self._expected_answer_usd,
                foreseen=stage != TASKS or tasks.requests >= self._tasks_before,
            )
            counts = tasks.requests, len(tasks.kept), len(tasks.rejected)
            self.watch(Progress(stage, *counts, target, answered, self.budget.tries_ended, money))
        if time.monotonic() - self._noted_at_s >= _SECONDS_BETWEEN_NOTES:
            self._note()

    def money(self, answered: int, *, answer_usd: float | None = None, foreseen: bool = True) -> Money:
        """Return the amounts spent and projected; arguments as for :meth:`Money.project`."""
        return Money.project(
            self.budget.spending(),
            kept=len(self.task_filter.kept),
            requests=self.task_filter.requests,
            answered=answered,
            target=self.settings.target,
            budget_usd=self.budget.budget_usd,
            answer_usd=answer_usd,
            foreseen=foreseen,
        )

    def _note(self) -> None:
        self._noted_at_s = time.monotonic()
        Funnel.count(self.task_filter, FilteredAnswers(), self.settings).note(self.ledger)
