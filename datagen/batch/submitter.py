"""How much is sent at once: what the limits, the provider's queue and the budget leave room for."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence

from datagen.batch.files import BatchLimits, Question, input_line, next_part
from datagen.batch.poster import Poster
from datagen.batch.store import BatchRecord, BatchStore
from datagen.batch.wire import BatchWire
from datagen.ledger import Ledger, Try
from datagen.money.budget import Budget
from datagen.service.chat import prompt_hash
from datagen.service.limits import in_words
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

#: A batch that the provider's queue has no room for is sent so many times, half as large each time.
_QUEUE_FULL = 12
#: A batch that the budget makes smaller than this part of what is to be sent is not worth its day.
_SMALLEST_PART = 0.02


class BatchSubmitter:
    """Cuts questions of one stage into batches, writes them down with their worst case, and has them sent.

    Args:
        poster: Brings a batch to the provider.
        wire: To the provider.
        ledger: Where the requests stand.
        stage: The ledger's stage.
        book: Where the batches stand.
        budget: Sets the worst case of a whole batch aside.
        limits: How large a batch may be, and how much may be under way.
        leave_usd: Tells what must be left of a budget, in US dollars, for what follows from one request.
    """

    def __init__(
        self,
        poster: Poster,
        wire: BatchWire,
        ledger: Ledger,
        stage: str,
        book: BatchStore,
        budget: Budget,
        limits: BatchLimits,
        leave_usd: Callable[[], float],
    ) -> None:
        self._poster, self._wire, self._ledger, self._stage = poster, wire, ledger, stage
        self._book, self._budget, self._limits, self._leave_usd = book, budget, limits, leave_usd
        self._token_room = math.inf if limits.enqueued_tokens is None else limits.enqueued_tokens
        self._queue_full = 0
        self._hold_until_s = 0.0

    def holds_back_s(self) -> float:
        """Return for how many seconds nothing is sent, because the provider's queue was full."""
        return max(0.0, self._hold_until_s - time.monotonic())

    async def send(self, questions: Sequence[Question]) -> bool:
        """Send as many batches as limits and money allow now; tell whether it was not money that ended it.

        Args:
            questions: What to ask, in this order.

        Raises:
            ServiceError: The service as a whole refuses or is not there.
        """
        while questions and time.monotonic() >= self._hold_until_s:
            under_way = self._book.under_way(self._stage)
            room = self._token_room - sum(record.prompt_tokens for record in under_way)
            if under_way and questions[0].prompt_tokens > room:
                break
            part = next_part(questions, self._limits, room)
            record = self._plan(part, fewest=math.ceil(_SMALLEST_PART * len(questions)))
            if record is None:
                return False
            await self._poster.make(record)
            questions = questions[record.requests :]
        return True

    def _plan(self, part: Sequence[Question], fewest: int) -> BatchRecord | None:
        """Write down as much of a part as the budget allows, with its worst case; None where that is too little."""
        with self._ledger.transaction():
            held = self._reserve(part)
            if len(held) < min(fewest, len(part)):
                for one in held:
                    self._budget.release(one)
                return None
            paid_for = part[: len(held)]
            record = self._book.plan(
                self._stage,
                base_url=self._wire.service.base_url,
                model=self._wire.service.model,
                requests=len(paid_for),
                prompt_tokens=sum(each.prompt_tokens for each in paid_for),
                content=self._fingerprint(paid_for),
            )
            for each in paid_for:
                self._ledger.record_sent(
                    self._stage, each.id, prompt_hash=prompt_hash(each.body), request=each.body
                )
                self._book.add(record, each.id)
        return record

    def _reserve(self, part: Iterable[Question]) -> list[Try]:
        """Set the worst case of each question aside, in their order, as far as the budget goes."""
        leave_usd = self._leave_usd()
        before = 1 + sum(record.requests for record in self._book.under_way(self._stage))
        held: list[Try] = []
        for each in part:
            leave = leave_usd * (before + len(held))
            one = self._budget.try_reserve(
                self._wire.service.model,
                each.body,
                stage=self._stage,
                id=each.id,
                batch=True,
                leave_usd=leave,
            )
            if one is None:
                break
            held.append(one)
        return held

    def _fingerprint(self, questions: Iterable[Question]) -> str:
        """Return what tells a batch from others, whatever the order of its lines."""
        content = hashlib.sha256()
        for each in sorted(questions, key=lambda each: each.id):
            content.update(input_line(self._stage, each.id, each.body))
        return content.hexdigest()[:32]

    def queue_has_room(self) -> None:
        """Note that the provider took a batch and ran it."""
        self._queue_full = 0

    def send_less(self, record: BatchRecord, words: str, *, in_a_while: bool) -> None:
        """Send smaller batches from now on, because the provider's queue is full.

        Args:
            record: The batch for which there was no room.
            words: The provider's.
            in_a_while: Send nothing for some time first.

        Raises:
            ServiceError: There is no room time and again, however little is sent.
        """
        self._queue_full += 1
        if self._queue_full > _QUEUE_FULL:
            raise self._wire.stop(
                "the provider's queue has no room, time and again",
                RequestError("queue-full", words, "fault"),
                remedy="run the same command again later, or set batch.enqueued_tokens to your account's limit",
            )
        self._token_room = max(1, min(self._token_room, record.prompt_tokens) // 2)
        wait_s = self._limits.poll_s * self._queue_full if in_a_while else 0.0
        self._hold_until_s = time.monotonic() + wait_s
        log.info("%s: %s; sending less, in %s", self._stage, words, in_words(wait_s))
