"""Collects the results of an ended batch into the ledger: replies, failures and costs.

Results are recorded in transactions and keyed by request, so a collection that was interrupted simply starts over and
skips the requests that it had recorded.
"""

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping
from typing import IO, Any, Literal

from datagen.batch.files import Line, Replies, scratch_file
from datagen.batch.states import file_id
from datagen.batch.store import BatchRecord
from datagen.batch.wire import BatchStage
from datagen.service.retry import PAID_TWICE, REFUSED_IN_A_ROW
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

_LINES_AT_ONCE = 200
#: A file that seems to lack something is fetched so many times before it is taken as it is.
_DOWNLOADS = 3
_SHOWN_PROBLEMS = 5
_GONE = (
    "the file is not at the provider (any more); if it does not come back, give the batch up with `cancel_batches` "
    "(its replies then count as spent)"
)
_FILES: tuple[Literal["output", "error"], ...] = ("output", "error")
_MISSING = RequestError("missing", "the batch ended without a reply to it", "fault", bill="unknown")


@dataclasses.dataclass
class Collected:
    """The outcome of one batch: counts of its requests, invalid lines, and an error that concerns all of them."""

    answered: int = 0
    failed: int = 0
    again: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    fatal: RequestError | None = None

    def words(self) -> str:
        """Summarize it in one line."""
        words = f"{self.answered} answered, {self.failed} failed, {self.again} to be asked again"
        return words + (f", {len(self.problems)} invalid lines" if self.problems else "")


class ResultCollector:
    """Collects the replies of one ended batch.

    Args:
        stage: The wire, ledger, store and budget to use.
        record: The batch.
        gives_up: Count replies as lost if the provider no longer has their file.
    """

    def __init__(self, stage: BatchStage, record: BatchRecord, *, gives_up: bool) -> None:
        self._wire, self._ledger, self._store = stage.wire, stage.ledger, stage.store
        self._budget, self._limits, self._record, self._gives_up = (
            stage.budget,
            stage.limits,
            record,
            gives_up,
        )
        self._members = stage.store.members(record)
        self._left = {id for id, member in self._members.items() if member.state == "sent"}
        self._held = stage.budget.open_batch(record.stage)
        self._refused: dict[str, RequestError] = {}
        # Requests that are billed, or may be, without a usable reply.
        self._for_nothing: dict[str, RequestError] = {}
        self._collected = Collected(answered=len(self._members) - len(self._left))

    async def collect(self, batch: Mapping[str, Any]) -> Collected:
        """Record all results of the batch, and mark it as ended.

        Args:
            batch: The provider's batch object.

        Raises:
            ServiceError: Its files cannot be fetched.
        """
        record = self._record
        replies = Replies(record.stage, self._members)
        read = 0
        for kind in _FILES:
            id = file_id(batch, kind)
            if not id:
                continue
            with scratch_file(self._ledger.path.parent) as file:
                expected = record.completed if kind == "output" else 0
                await self._fetch(id, file, expected)
                before = len(replies.seen)
                await self._take_all(replies.read(file, kind))
                if expected:
                    read = len(replies.seen) - before
        problems = self._collected.problems = replies.problems
        with self._ledger.transaction():
            self._settle_missing(lost=max(0, record.completed - read))
            self._settle_refused()
            self._stop_paying_for_nothing()
            self._store.ended(record, self._collected.words())
        for problem in problems[:_SHOWN_PROBLEMS]:
            log.warning("batch %s: %s", record.batch_id, self._wire.words(problem))
        if len(problems) > _SHOWN_PROBLEMS:
            log.warning("batch %s: %d invalid lines in all", record.batch_id, len(problems))
        return self._collected

    async def _fetch(self, file_id: str, into: IO[bytes], expected: int) -> None:
        """Download a file, again where it is shorter than the provider says or ends within a line."""
        batch_id = self._record.batch_id
        for number in range(1, _DOWNLOADS + 1):
            size = await self._wire.retry(
                f"fetching the replies of batch {batch_id}",
                lambda: self._wire.download(file_id, into),
                if_unknown=_GONE,
                none_if=lambda error: self._gives_up and error.code == "not-found",
            )
            if size is None:
                log.warning("batch %s: its file %s is gone", batch_id, file_id)
            lines, cut = 0, False
            for text in into:
                lines += 1
                cut = not text.endswith(b"\n") and not text.rstrip().endswith(b"}")
            into.seek(0)
            if not cut and lines >= expected:
                return
            if number < _DOWNLOADS:
                ends = ", the last one cut" if cut else ""
                log.info("batch %s: %d of %d replies came%s; fetching again", batch_id, lines, expected, ends)
                await asyncio.sleep(min(self._limits.poll_s, number * self._wire.service.first_wait_s))

    async def _take_all(self, lines: Iterator[Line]) -> None:
        """Record lines, 200 in one transaction."""
        while part := list(itertools.islice(lines, _LINES_AT_ONCE)):
            with self._ledger.transaction():
                for line in part:
                    self._take(line)
            await asyncio.sleep(0)

    def _take(self, line: Line) -> None:
        """Record the result in one line."""
        if line.id not in self._left:
            return
        self._left.discard(line.id)
        held = self._held.pop(line.id, None)
        try:
            answer = self._wire.read_line(line)
        except RequestError as error:
            if held is not None:
                self._budget.pay(held, error.bill, *error.usage)
            self._judge(line.id, error)
            return
        cost = None
        if held is not None:
            cost = self._budget.settle(held, answer.prompt_tokens, answer.completion_tokens)
        self._ledger.record_reply(self._record.stage, line.id, **answer.row(), cost_usd=cost)
        self._collected.answered += 1

    def _judge(self, id: str, error: RequestError) -> None:
        """Leave a request to the next round, unless it is rejected, had all rounds, or was billed twice already."""
        if error.kind == "final":
            self._refused[id] = error
            return
        if error.kind == "fatal":
            self._collected.fatal = self._collected.fatal or error
            self._collected.again += 1
            return
        if error.kind == "fault" and error.bill != "none":
            self._for_nothing[id] = error
        tries = self._members[id].tries
        paid = self._ledger.batch_tries_paid(self._record.stage, id)
        if tries < self._limits.max_rounds and paid < PAID_TWICE:
            self._collected.again += 1
        else:
            costs = f", {paid} of them paid for" if paid else ""
            self._fail(id, f"{error} (after {tries} tries{costs})")

    def _fail(self, id: str, words: str) -> None:
        self._ledger.record_failure(self._record.stage, id, error=words)
        self._collected.failed += 1

    def _settle_missing(self, lost: int) -> None:
        """Record the requests that are missing from the files.

        Args:
            lost: Number of replies that the provider reports as completed and that are missing; as many of the
                missing requests, the most expensive first, count as spent.
        """
        missing = [(self._held[id], id) for id in self._left if id in self._held]
        missing.sort(key=lambda each: (-(each[0].reserved_usd or 0.0), each[1]))
        for place, (held, _) in enumerate(missing):
            self._budget.pay(held, "unknown" if place < lost else "none")
        spent = {id for _, id in missing[:lost]}
        for id in sorted(self._left):
            self._judge(id, _MISSING if id in spent else dataclasses.replace(_MISSING, bill="none"))

    def _settle_refused(self) -> None:
        """Record the rejected requests as failed, unless the service rejects all of them."""
        together = not self._collected.answered and len(self._refused) >= REFUSED_IN_A_ROW
        if together and all(each.code == "bad-request" for each in self._refused.values()):
            first = next(iter(self._refused.values()))
            what = "the service refused every request of a batch"
            self._end_run(RequestError(first.code, first.words, "fatal", what=what, field=first.field))
            self._collected.again += len(self._refused)
            return
        for id, error in self._refused.items():
            self._fail(id, str(error))

    def _stop_paying_for_nothing(self) -> None:
        """End the run if a batch was billed without a single usable reply: so would be the next one."""
        if self._collected.answered or not self._for_nothing:
            return
        if len(self._for_nothing) >= REFUSED_IN_A_ROW or self._collected.failed:
            words = next(iter(self._for_nothing.values())).words
            what = "no reply of a batch is readable, and all may be billed"
            self._end_run(RequestError("unreadable", words, "fatal", what=what))

    def _end_run(self, error: RequestError) -> None:
        self._collected.fatal = self._collected.fatal or error
