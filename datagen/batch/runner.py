"""Runs the batches of one stage: records, submits, polls and collects them, and submits missing requests again.

Every step is recorded before the next one begins, so a killed process resumes at any point: a batch that was planned
is searched at the provider by its metadata, and only created if it is not there; a batch under way is polled again;
a collection skips the requests that were recorded.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from datagen.batch.collector import ResultCollector
from datagen.batch.files import BatchLimits, Question, as_question
from datagen.batch.states import ENDED, counts, file_id, read_refusal, read_state
from datagen.batch.store import BatchRecord, BatchStore, describe
from datagen.batch.submitter import BatchSubmitter
from datagen.batch.wire import BatchStage, BatchWire, Unlisted
from datagen.errors import ConfigError
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.service.chat import ChatRequest, prompt_hash
from datagen.service.endpoint import Service
from datagen.service.limits import in_words
from datagen.service.stop import stop_for
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

#: The first look at a batch, in seconds after it was sent; each further one waits longer.
_FIRST_LOOK_S = 5.0
_LONGER = 1.5
#: Longest time between two progress lines, in seconds.
_SILENCE_S = 300.0
#: A batch that is completed is looked at so many times more for the id of its output file.
_LOOKS_FOR_A_FILE = 5
#: Longer than the window of any batch, in seconds.
_LONGEST_UNKNOWN_S = 36 * 3600.0
_FOREIGN = (
    "check the key and its project; or, if the batch is lost, give it up with `cancel_batches` "
    "(its requests then count as spent)"
)


class BatchesUnderWay(Exception):
    """All batches that can be submitted are under way, and the caller does not wait.

    Attributes:
        records: The batches.
    """

    def __init__(self, records: Sequence[BatchRecord]) -> None:
        self.records = list(records)
        super().__init__(f"{len(self.records)} batches are under way")


class BatchRunner:
    """Gets requests of one stage answered through batches; an asynchronous context manager.

    Args:
        service: The service.
        ledger: Records every batch, request and reply.
        stage: The ledger's stage.
        budget: Reserves the worst case of a whole batch before it is submitted.
        limits: Limits on the size, the retries and the polling of batches.
        wait: Wait for replies.
        watch: Called on every change.
        leave_usd: Returns the amount of the budget, in US dollars, to keep for the follow-up of one request.
    """

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        stage: str,
        budget: Budget,
        limits: BatchLimits,
        wait: bool = True,
        watch: Callable[[], None] = lambda: None,
        leave_usd: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._service, self._ledger, self._stage, self._budget = service, ledger, stage, budget
        self._limits, self._wait, self._watch = limits, wait, watch
        self._wire = BatchWire(service, stage)
        self._store = BatchStore(ledger)
        self._batches = BatchStage(stage, self._wire, ledger, self._store, budget, limits)
        self._submitter = BatchSubmitter(self._batches, leave_usd)
        self._resumed = self._cancelling = False
        # Requests of batches that ended during this round.
        self._asked: set[str] = set()
        self._unknown: set[tuple[int, str]] = set()
        self._told, self._told_at_s = "", 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.__aexit__()

    async def settle(self, requests: Sequence[ChatRequest]) -> None:
        """Ask until every request is settled.

        Raises:
            BatchesUnderWay: Nothing more can be done without waiting.
            ServiceError: The service as a whole refuses or is not there, or the budget is reached.
        """
        while self._unsettled(requests):
            await self.ask_once(requests)

    async def ask_once(self, requests: Sequence[ChatRequest]) -> None:
        """Ask every request that is not settled once, and wait until it is settled or came back without a reply.

        Raises:
            BatchesUnderWay: Nothing more can be done without waiting.
            ServiceError: The service as a whole refuses or is not there, or the budget is reached.
        """
        await self._resume()
        self._asked.clear()
        while True:
            unsettled = self._unsettled(requests)
            here = self._not_under_way(unsettled)
            to_send = [question for question in here if question.id not in self._asked]
            if not to_send and len(here) == len(unsettled):
                return
            enough_money = await self._submitter.send(to_send)
            if not self._under_way():
                if not enough_money:
                    worst_usd = self._budget.worst_usd(self._service.model, to_send[0].body, batch=True)
                    raise self._budget.reached(worst_usd)
                await asyncio.sleep(self._submitter.holds_back_s())
            elif not await self._look():
                if not self._wait:
                    raise BatchesUnderWay(self._under_way())
                await self._wait_for_an_end()

    async def look_once(self) -> None:
        """Collect the batches that have ended; undo those that never reached the provider."""
        await self._resume()
        await self._look()

    async def cancel(self) -> None:
        """Cancel all batches of the stage and collect their results."""
        self._cancelling = True
        await self._resume()
        for record in self._under_way():
            assert record.batch_id is not None
            await self._submitter.cancel(record.batch_id)
        await self._look()
        await self._wait_for_an_end(all_of_them=True)

    def _under_way(self) -> list[BatchRecord]:
        return self._store.under_way(self._stage)

    def _unsettled(self, requests: Sequence[ChatRequest]) -> list[ChatRequest]:
        hashes = {request.id: prompt_hash(request.body(self._service.model)) for request in requests}
        settled = self._ledger.settled
        return [each for each in requests if not settled(self._stage, each.id, prompt_hash=hashes[each.id])]

    def _not_under_way(self, requests: Sequence[ChatRequest]) -> list[Question]:
        asked = {id for record in self._under_way() for id in self._store.members(record)}
        return [
            as_question(self._stage, request.id, request.body(self._service.model))
            for request in requests
            if request.id not in asked
        ]

    # Going on where an earlier process was

    async def _resume(self) -> None:
        """Resume the batches of an earlier process; undo those that never reached the provider."""
        if self._resumed:
            return
        self._resumed = True
        for record in self._under_way():
            if record.state == "planned" and not record.asked_for:
                self._store.take_back(record, self._budget, "never sent")
        self._refuse_elsewhere()
        for record in self._under_way():
            if record.state != "planned":
                continue
            try:
                found = await self._submitter.look_for(record)
            except Unlisted:
                if not self._cancelling:
                    raise
                self._store.give_up(record, self._budget)
                continue
            if found:
                log.info("%s: batch %s was sent by an earlier process", record.stage, found[0]["id"])
                await self._submitter.adopt(record, found)
            else:
                self._store.take_back(record, self._budget, "never made")

    def _refuse_elsewhere(self) -> None:
        """Refuse to resume batches at another service than the one that has them."""
        for record in self._under_way():
            if record.base_url.rstrip("/") != self._service.base_url.rstrip("/"):
                raise ConfigError(
                    "a batch of this work folder is under way at another address",
                    where=f"{record.stage}, batch {record.key}",
                    found=self._service.base_url,
                    expected=record.base_url,
                    remedy="use that address until the batch has ended, or end it there with `cancel_batches`",
                )

    # Waiting

    async def _wait_for_an_end(self, *, all_of_them: bool = False) -> None:
        wait_s = min(_FIRST_LOOK_S, self._limits.poll_s)
        while self._under_way():
            self._tell()
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * _LONGER, self._limits.poll_s)
            if await self._look() and not all_of_them:
                return

    def _tell(self) -> None:
        """Log the progress of the batches, if it changed or after a long time."""
        records, now_s = self._under_way(), time.monotonic()
        words, _, age = describe(records).rpartition(", after ")
        if words != self._told or now_s - self._told_at_s >= _SILENCE_S:
            self._told, self._told_at_s = words, now_s
            log.info("%s: %s, after %s", self._stage, words, age)
            self._watch()

    async def _look(self) -> bool:
        """Poll every batch and collect those that have ended; return whether one had."""
        ended = False
        for record in self._under_way():
            batch = await self._retrieve(record)
            record = record if batch is None else self._note(record, batch)
            if batch is None or (self._cancelling and _is_lost(record)):
                why = "is not known at the provider" if batch is None else "is given up"
                log.warning("%s: batch %s %s", self._stage, record.batch_id, why)
                self._store.give_up(record, self._budget)
            elif self._has_ended(record, batch):
                self._asked |= self._store.members(record).keys()
                await self._end(record, batch)
                self._watch()
            else:
                continue
            ended = True
        return ended

    async def _retrieve(self, record: BatchRecord) -> dict[str, Any] | None:
        """Return the provider's batch object; None if a batch that is being cancelled is unknown there."""
        assert record.batch_id is not None
        batch_id = record.batch_id
        return await self._wire.retry(
            f"looking at batch {batch_id}",
            lambda: self._wire.retrieve(batch_id),
            if_unknown=_FOREIGN,
            none_if=lambda error: self._cancelling and error.code == "not-found",
        )

    def _note(self, record: BatchRecord, batch: Mapping[str, Any]) -> BatchRecord:
        """Record the provider's state of a batch."""
        status, told = self._wire.words(batch["status"].lower()), counts(batch)
        # Without counts, every request for which there may be a reply counts as completed.
        done = read_state(status) in ("completed", "expired", "cancelled")
        may_be_done = done and (file_id(batch, "output") or not file_id(batch, "error"))
        completed, failed = told or (record.requests if may_be_done else 0, 0)
        return self._store.checked(record, status=status, completed=completed, failed=failed)

    # Ending

    def _has_ended(self, record: BatchRecord, batch: Mapping[str, Any]) -> bool:
        """Return whether a batch has ended and its replies can be downloaded.

        Raises:
            ServiceError: It is in an unknown state for longer than any batch takes.
        """
        state, output = read_state(record.status), file_id(batch, "output")
        if state == "unknown":
            if output and record.completed + record.failed >= record.requests:
                return True
            self._warn_of_unknown_state(record)
        if state not in ENDED:
            return False
        if state == "completed" and record.completed and not output:
            # Some providers name the file a little later than they say that the batch is completed.
            if self._store.looked_in_vain(record) <= _LOOKS_FOR_A_FILE:
                return False
            log.warning(
                "%s: batch %s is %s and has no output file; its %d replies count as spent",
                record.stage, record.batch_id, record.status, record.completed,
            )  # fmt: skip
        return True

    def _warn_of_unknown_state(self, record: BatchRecord) -> None:
        if _is_lost(record):
            raise self._wire.policy.stop(
                f"batch {record.batch_id} has been in an unknown state for {in_words(record.age_s())}",
                RequestError("unknown-state", record.status, "fatal"),
                remedy="look at the batch on the provider's page; run the same command again when it has ended, or "
                "give it up with `cancel_batches` (its requests then count as spent)",
            )
        if (record.number, record.status) not in self._unknown:
            self._unknown.add((record.number, record.status))
            log.warning(
                "%s: batch %s is in the unknown state %r; waiting for it to end (`cancel_batches` ends it)",
                record.stage, record.batch_id, record.status,
            )  # fmt: skip

    async def _end(self, record: BatchRecord, batch: Mapping[str, Any]) -> None:
        """Collect an ended batch, and end the run if the next batch would fail for the same reason."""
        state = read_state(record.status)
        if state == "failed" and not (file_id(batch, "output") or file_id(batch, "error")):
            self._end_refused(record, batch)
            return
        collected = await ResultCollector(self._batches, record, gives_up=self._cancelling).collect(batch)
        self._submitter.queue_has_room()
        took, words = in_words(record.age_s()), collected.words()
        log.info("%s: batch %s %s after %s: %s", self._stage, record.batch_id, record.status, took, words)
        if self._cancelling:
            return
        if collected.fatal is not None:
            in_batch = collected.fatal.code == "unreadable"
            raise stop_for(self._service, self._stage, collected.fatal.what, collected.fatal, batch=in_batch)
        if state == "cancelled" and collected.again:
            raise self._wire.policy.stop(
                f"batch {record.batch_id} was cancelled at the provider",
                remedy=f"run the same command again to send its {collected.again} other requests once more",
            )

    def _end_refused(self, record: BatchRecord, batch: Mapping[str, Any]) -> None:
        """Handle a batch that the provider rejected as a whole, before it ran any of it."""
        refusal = read_refusal(batch, self._wire.words)
        ids = list(self._store.members(record))
        self._store.take_back(record, self._budget, f"failed: {refusal.words}")
        self._asked.difference_update(ids)
        meant = refusal.meant
        if self._cancelling:
            return
        if refusal.queue_is_full:
            self._submitter.send_less(record, refusal.words, in_a_while=self._wait)
        elif refusal.lines and len(refusal.lines) < len(ids):
            for line, words in refusal.lines.items():
                if 1 <= line <= len(ids):
                    self._ledger.record_failure(self._stage, ids[line - 1], error=f"bad-request: {words}")
            many = len(refusal.lines)
            log.warning("%s: batch %s was refused for %d of its lines", self._stage, record.batch_id, many)
        elif meant is not None and (meant.kind == "fatal" or meant.field):
            error = RequestError(meant.code, refusal.words, "fatal", field=meant.field)
            raise stop_for(self._service, self._stage, meant.what or "the service refused a batch", error)
        else:
            raise self._wire.policy.stop(
                "the service refused a batch",
                RequestError("bad-request", refusal.words, "fatal"),
                remedy="mend what the provider names, then run the same command again; nothing was run",
            )


def _is_lost(record: BatchRecord) -> bool:
    """Return whether a batch has been in an unknown state for longer than any batch takes."""
    return read_state(record.status) == "unknown" and record.age_s() > _LONGEST_UNKNOWN_S
