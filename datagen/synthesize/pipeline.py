"""Both stages of a run: ask for tasks and keep those that pass the filter, then have the kept tasks answered."""

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


def require_keys(settings: Settings) -> None:
    """See that both services have the key that they need.

    Raises:
        ServiceError: A key is missing; the option that names it is in the remedy.
    """
    settings.teacher.api_key()
    try:
        settings.answerer.api_key()
    except ServiceError as error:
        error.remedy = (error.remedy or "").replace("`api_key_env`", "`answerer.api_key_env`")
        raise


class Pipeline:
    """Asks what a run asks, live or through batches, and may go on with more tasks when answers are in.

    Args:
        settings: What to do.
        seeds: The seed tasks.
        ledger: Records every outcome, and about once a second how far the run is.
        budget: Keeps the cap.
        wait: In batch mode, wait for replies.
        watch: Called whenever a reply has been judged, or None.
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
        #: Judges the replies with tasks, in their order.
        self.task_filter = TaskFilter(seeds, settings)
        self._expected_answer_usd = expected_answer_usd(settings, seeds, budget.prices)
        counts = ledger.counts()
        settled = {stage: each["answered"] + each["failed"] for stage, each in counts.items()}
        # Until these are judged again, it is unknown how many tasks the money already spent has bought.
        self._tasks_before, self._answers_before = settled.get(TASKS, 0), settled.get(ANSWERS, 0)
        self._noted_at_s = -math.inf

    def tasks(self) -> BudgetReached | None:
        """Ask for tasks until the target is reached; return the error if the budget ends that.

        Raises:
            BatchesUnderWay: Nothing more can be done without waiting.
            ServiceError: The service refuses or cannot be reached; what was answered is kept.
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
            # The replies behind the one at which the run stopped are paid for.
            take_settled(self.task_filter, self.settings, lambda id: self.ledger.settled(TASKS, id))
            return reached
        finally:
            self._note()
        return None

    def _task_replies(self) -> AsyncGenerator[Reply, None]:
        """Return the stream of replies behind those that were judged, live or through batches.

        A batch is paid for as a whole, so it leaves what the answers to its tasks are expected to cost.
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
        """Yield the requests behind those that were judged; look for keys before the first that is to be sent."""
        found_keys = False
        for request in islice(task_requests(self.settings, self.seeds), self.task_filter.requests, None):
            if not found_keys and self.ledger.settled(TASKS, request.id) is None:
                require_keys(self.settings)
                found_keys = True
            yield request

    def _requests_wanted(self, ahead: Sequence[Reply]) -> int:
        """Estimate how many requests the target still needs, with replies that are in but cannot be judged yet."""
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
        """Return what one answer costs: the mean of those that are in, or what is expected; 0 without a price."""
        return mean_usd(self.budget.spending(), ANSWERS, self._expected_answer_usd) or 0.0

    def answers(self) -> list[Reply]:
        """Have the kept tasks answered; those that the budget does not cover fail with the reason "budget".

        Raises:
            BatchesUnderWay: Nothing more can be done without waiting.
            ServiceError: The service refuses or cannot be reached; what was answered is kept.
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
            return Reply(request.id, "", "", "", 0, 0, error="budget: not asked, to keep the cap")
        return read_reply(entry)

    def _tell(self, stage: str, answered: int, target: int) -> None:
        """Report progress to the callback, and about once a second to the ledger."""
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
        """Return what is spent and projected; arguments as for :meth:`Money.project`."""
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
