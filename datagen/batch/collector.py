"""What an ended batch brought goes into the ledger: replies, failures, money; and what is left to be asked again.

Everything is settled in transactions and keyed by request, so a harvest that is cut off is simply made again: what
it had settled by then is passed over.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from typing import IO, Any, Literal

from datagen.batch.files import BatchLimits, Line, Replies, scratch_file
from datagen.batch.states import file_id
from datagen.batch.store import BatchRecord, BatchStore, Member
from datagen.batch.wire import BatchWire
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

_LINES_AT_ONCE = 200
#: A file that seems to lack something is fetched so many times before it is taken as it is.
_DOWNLOADS = 3
_SHOWN_PROBLEMS = 5
_GONE = (
    "the file is not at the provider (any more); if it does not come back, give the batch up with --cancel-batches "
    "(its replies then count as spent)"
)
_FILES: tuple[Literal["output", "error"], ...] = ("output", "error")
#: Replies to one request that are paid for and cannot be read; then it has failed.
_PAID_TRIES = 2
#: A batch without a single answer, in which at least so many requests are refused for what they say, is no accident.
_REFUSED_TOGETHER = 5


@dataclasses.dataclass
class Collected:
    """What came of one batch: counts of its requests, useless lines, and a trouble that concerns all of them."""

    answered: int = 0
    failed: int = 0
    again: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    fatal: RequestError | None = None

    def words(self) -> str:
        """Say it in one line."""
        words = f"{self.answered} answered, {self.failed} failed, {self.again} to be asked again"
        return words + (f", {len(self.problems)} useless lines" if self.problems else "")


class ResultCollector:
    """Brings in ended batches of one stage.

    Args:
        wire: To the service that has them.
        ledger: Where replies go.
        book: Where batches stand.
        budget: Which holds the worst case of each of their requests.
        limits: How often a request is sent at most.
    """

    def __init__(
        self, wire: BatchWire, ledger: Ledger, book: BatchStore, budget: Budget, limits: BatchLimits
    ) -> None:
        self._wire, self._ledger, self._book = wire, ledger, book
        self._budget, self._limits = budget, limits
        #: Take replies whose file the provider does not have any more for lost.
        self.gives_up = False

    async def bring_in(self, record: BatchRecord, batch: Mapping[str, Any]) -> Collected:
        """Settle everything that an ended batch brought, and mark it as ended.

        Args:
            record: The batch.
            batch: What the provider says about it.

        Raises:
            ServiceError: Its files cannot be fetched.
        """
        one = _One(record, self._ledger, self._budget, self._limits, self._book.members(record))
        replies = Replies(record.stage, one.members)
        read = 0
        for kind in _FILES:
            id = file_id(batch, kind)
            if not id:
                continue
            with scratch_file(self._ledger.path.parent) as file:
                expected = record.completed if kind == "output" else 0
                await self._fetch(record, id, file, expected)
                before = len(replies.seen)
                await self._take(one, replies, file, kind)
                if expected:
                    read = len(replies.seen) - before
        one.harvest.problems = replies.problems
        with self._ledger.transaction():
            one.settle_rest(lost=max(0, record.completed - read))
            self._book.ended(record, one.harvest.words())
        for problem in replies.problems[:_SHOWN_PROBLEMS]:
            log.warning("batch %s: %s", record.batch_id, self._wire.words(problem))
        if len(replies.problems) > _SHOWN_PROBLEMS:
            log.warning("batch %s: %d useless lines in all", record.batch_id, len(replies.problems))
        return one.harvest

    async def _fetch(self, record: BatchRecord, file_id: str, into: IO[bytes], expected: int) -> None:
        """Download a file, again where it is shorter than the provider says or ends within a line."""

        async def download() -> None:
            try:
                await self._wire.download(file_id, into)
            except RequestError as trouble:
                if trouble.code != "not-found" or not self.gives_up:
                    raise
                log.warning("batch %s: its file %s is gone", record.batch_id, file_id)
                into.seek(0)
                into.truncate()

        for number in range(1, _DOWNLOADS + 1):
            await self._wire.insist(
                f"fetching the replies of batch {record.batch_id}", download, if_unknown=_GONE
            )
            lines, cut = 0, False
            for text in into:
                lines += 1
                cut = not text.endswith(b"\n") and not text.rstrip().endswith(b"}")
            into.seek(0)
            if not cut and lines >= expected:
                return
            if number < _DOWNLOADS:
                log.info(
                    "batch %s: %d of %d replies came%s; fetching again",
                    record.batch_id,
                    lines,
                    expected,
                    ", the last one cut" if cut else "",
                )
                await asyncio.sleep(min(self._limits.poll_s, number * self._wire.service.first_wait_s))

    async def _take(self, one: "_One", replies: Replies, file: IO[bytes], name: str) -> None:
        lines = replies.read(file, name)
        more = True
        while more:
            with self._ledger.transaction():
                for _ in range(_LINES_AT_ONCE):
                    line = next(lines, None)
                    if line is None:
                        more = False
                        break
                    one.take(line, self._wire)
            await asyncio.sleep(0)


class _One:
    """The settling of one batch."""

    def __init__(
        self,
        record: BatchRecord,
        ledger: Ledger,
        budget: Budget,
        limits: BatchLimits,
        members: Mapping[str, Member],
    ) -> None:
        self._record, self._ledger, self._budget, self._limits = record, ledger, budget, limits
        self.members = members
        self._left = {id for id, member in members.items() if member.state == "sent"}
        self._held = budget.open_batch(record.stage)
        self._refused: dict[str, RequestError] = {}
        self._for_nothing: dict[str, RequestError] = {}
        self.harvest = Collected(answered=len(members) - len(self._left))

    def take(self, line: Line, wire: BatchWire) -> None:
        """Settle the request of one line."""
        if line.id not in self._left:
            return
        self._left.discard(line.id)
        held = self._held.pop(line.id, None)
        try:
            answer = wire.read_line(line)
        except RequestError as trouble:
            if held is not None:
                self._budget.pay(held, trouble.bill, *trouble.usage)
            if trouble.kind == "fault" and trouble.bill != "none":
                self._for_nothing[line.id] = trouble
            self._judge(line.id, trouble)
            return
        cost = None
        if held is not None:
            cost = self._budget.settle(held, answer.prompt_tokens, answer.completion_tokens)
        self._ledger.record_reply(self._record.stage, line.id, **answer.row(), cost_usd=cost)
        self.harvest.answered += 1

    def _judge(self, id: str, trouble: RequestError) -> None:
        if trouble.kind == "fatal":
            self.harvest.fatal = self.harvest.fatal or trouble
            self.harvest.again += 1
        elif trouble.kind == "final":
            self._refused[id] = trouble
        else:
            self._again_or_never(id, trouble)

    def _again_or_never(self, id: str, trouble: RequestError) -> None:
        """Leave a request to the next round, unless it has had its rounds, or was paid for twice already."""
        tries = self.members[id].tries
        paid = self._ledger.batch_tries_paid(self._record.stage, id)
        if tries < self._limits.max_rounds and paid < _PAID_TRIES:
            self.harvest.again += 1
            return
        costs = f", {paid} of them paid for" if paid else ""
        self._fail(id, f"{trouble} (after {tries} tries{costs})")

    def _fail(self, id: str, words: str) -> None:
        self._ledger.record_failure(self._record.stage, id, error=words)
        self.harvest.failed += 1

    def settle_rest(self, lost: int) -> None:
        """Settle the refused requests and those of which the files say nothing.

        Args:
            lost: Replies that the provider says it made and that are not there; as many of the missing requests,
                the dearest first, count as spent.
        """
        together = not self.harvest.answered and len(self._refused) >= _REFUSED_TOGETHER
        if together and all(each.code == "bad-request" for each in self._refused.values()):
            first = next(iter(self._refused.values()))
            self.harvest.fatal = self.harvest.fatal or RequestError(
                first.code,
                first.words,
                "fatal",
                what="the service refused every request of a batch",
                field=first.field,
            )
            self.harvest.again += len(self._refused)
        else:
            for id, trouble in self._refused.items():
                self._fail(id, str(trouble))
        absent = RequestError("missing", "the batch ended without a reply to it", "fault", bill="unknown")
        missing = [(self._held[id], id) for id in self._left if id in self._held]
        missing.sort(key=lambda each: (-(each[0].reserved_usd or 0.0), each[1]))
        for place, (held, id) in enumerate(missing):
            if place < lost:
                self._budget.forfeit(held)
                self._for_nothing[id] = absent
            else:
                self._budget.release(held)
        for id in sorted(self._left):
            self._again_or_never(id, absent)
        self._stop_paying_for_nothing()

    def _stop_paying_for_nothing(self) -> None:
        """End the run where a batch was paid for and brought no reply at all: the next one would be, too."""
        if self.harvest.answered or not self._for_nothing:
            return
        if len(self._for_nothing) >= _REFUSED_TOGETHER or self.harvest.failed:
            words = next(iter(self._for_nothing.values())).words
            self.harvest.fatal = self.harvest.fatal or RequestError(
                "unreadable",
                words,
                "fatal",
                what="no reply of a batch can be read, and all count as paid for",
            )
