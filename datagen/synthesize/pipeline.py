"""Both stages of a run: ask for tasks and keep what the task filter lets pass, then have the kept tasks answered."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from itertools import islice
from typing import Any

from datagen.batch.client import stream_in_batches
from datagen.client import ChatRequest, Reply, read_reply, stream
from datagen.ledger import Ledger
from datagen.money.budget import Budget, BudgetReached
from datagen.questions import ANSWERS, TASKS, answer_request, task_requests
from datagen.records import SeedTask
from datagen.settings import BATCH, Settings
from datagen.synthesize.funnel import count
from datagen.task_filter import FilteredAnswers, TaskFilter
from datagen.work.asking import ask_all
from datagen.work.keys import with_keys
from datagen.work.status import Progress, Reporter


@dataclasses.dataclass
class Pipeline:
    """Asks what a run asks, live or through batches, and may go on with more tasks when answers are in.

    Attributes:
        settings: What to do.
        seeds: The seed tasks.
        ledger: Where every outcome is written down.
        budget: Keeps the cap.
        reporter: Is told how far the run is.
        task_filter: Judges the replies with tasks, in their order.
        wait: In batch mode, wait for replies.
    """

    settings: Settings
    seeds: Sequence[SeedTask]
    ledger: Ledger
    budget: Budget
    reporter: Reporter
    task_filter: TaskFilter
    wait: bool

    def tasks(self) -> BudgetReached | None:
        """Ask for tasks until the task filter has enough; where the budget ends that, return what says so.

        Raises:
            BatchesUnderWay: Nothing more can be done without waiting.
            ServiceError: The service refuses or cannot be reached; what was answered is kept.
        """
        return asyncio.run(self._take_tasks())

    async def _take_tasks(self) -> BudgetReached | None:
        answered = self.ledger.counts().get(ANSWERS, {"answered": 0})["answered"]
        self._keep_for_answers(answered)
        try:
            async with contextlib.aclosing(self._task_replies()) as replies:
                async for reply in replies:
                    self.task_filter.take(reply)
                    self._keep_for_answers(answered)
                    self.reporter.tell(dataclasses.replace(self._progress(), answered=answered), self._counts)
                    if self.task_filter.full:
                        break
        except BudgetReached as reached:
            self._take_settled()
            return reached
        finally:
            self.reporter.note(self._counts())
        return None

    def _task_replies(self) -> AsyncGenerator[Reply, None]:
        """Return the stream of replies behind those that the task filter has taken, live or through batches.

        A batch is paid for as a whole, so it leaves what the answers to its tasks are expected to cost.
        """
        settings = self.settings
        missing = islice(task_requests(settings, self.seeds), self.task_filter.requests, None)
        requests = with_keys(missing, settings, self.ledger, TASKS)
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
                leave_usd=lambda: self.task_filter.kept_of_a_request() * (self.reporter.answer_usd() or 0.0),
            )
        window = None if settings.eager else self.task_filter.requests_wanted
        return stream(requests, settings.teacher, self.ledger, stage=TASKS, window=window, budget=self.budget)

    def _requests_wanted(self, ahead: Sequence[Reply]) -> int:
        """Estimate how many requests the target still needs, with replies that are in but cannot be judged yet."""
        if not ahead:
            return self.task_filter.requests_wanted()
        trial = TaskFilter(self.seeds, self.settings)
        for number in range(self.task_filter.requests):
            entry = self.ledger.get(TASKS, f"{number:06d}")
            assert entry is not None
            trial.take(read_reply(entry))
        for reply in ahead:
            trial.take(reply)
        return 0 if trial.full else trial.requests_wanted()

    def _keep_for_answers(self, answered: int) -> None:
        """Keep enough of a budget to have the kept tasks answered, instead of spending all of it on more tasks."""
        if self.budget.budget_usd is None:
            return
        waiting = len(self.task_filter.kept) - answered
        if waiting <= 0:
            self.budget.set_aside(ANSWERS, 0.0)
            return
        model = self.settings.answerer.model
        last = answer_request(self.settings, self.task_filter.kept[-1]).body(model)
        one_in_flight = self.budget.worst_usd(model, last, batch=self.settings.mode == BATCH)
        self.budget.set_aside(ANSWERS, waiting * (self.reporter.answer_usd() or 0.0) + one_in_flight)

    def _take_settled(self) -> None:
        """Judge the replies behind the one at which a run stopped; they are paid for."""
        while not self.task_filter.full and self.task_filter.requests < self.settings.request_limit():
            entry = self.ledger.get(TASKS, f"{self.task_filter.requests:06d}")
            if entry is None or entry.state == "sent":
                return
            self.task_filter.take(read_reply(entry))

    def answers(self) -> list[Reply]:
        """Have the kept tasks answered; those for which the budget does not suffice are said to have failed for it.

        Raises:
            BatchesUnderWay: Nothing more can be done without waiting.
            ServiceError: The service refuses or cannot be reached; what was answered is kept.
        """
        requests = [answer_request(self.settings, kept) for kept in self.task_filter.kept]
        try:
            return self._ask_for_answers(requests)
        except BudgetReached:
            return [self._answer_or_none(request) for request in requests]

    def _ask_for_answers(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        before = self._progress()

        def tell(settled: int, total: int) -> None:
            progress = dataclasses.replace(before, stage=ANSWERS, target=total, answered=settled)
            self.reporter.tell(progress, self._counts)

        return ask_all(
            requests,
            self.settings.answerer,
            self.ledger,
            self.settings,
            self.budget,
            stage=ANSWERS,
            wait=self.wait,
            progress=tell,
        )

    def _answer_or_none(self, request: ChatRequest) -> Reply:
        entry = self.ledger.get(ANSWERS, request.id)
        if entry is None or entry.state == "sent":
            return Reply(request.id, "", "", "", 0, 0, error="budget: not asked, to keep the cap")
        return read_reply(entry)

    def _progress(self) -> Progress:
        task_filter = self.task_filter
        return Progress(
            TASKS,
            task_filter.requests,
            len(task_filter.kept),
            len(task_filter.rejected),
            self.settings.target,
        )

    def _counts(self) -> dict[str, Any]:
        return count(self.task_filter, FilteredAnswers(), self.settings)
