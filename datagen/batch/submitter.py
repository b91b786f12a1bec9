"""Submits batches: as many as limits, queue and budget allow, and none of them twice.

A request to create a batch or upload a file may have succeeded even if its response was lost. So after a kill or a
broken connection, the provider's list is first searched for the batch's metadata or the file's name.
"""

import asyncio
import datetime
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from datagen.batch.files import Question, input_line, next_part, scratch_file
from datagen.batch.states import read_file_state, read_state
from datagen.batch.store import BatchRecord
from datagen.batch.wire import UNSUPPORTED, BatchStage
from datagen.ledger import Try
from datagen.service.chat import prompt_hash
from datagen.service.limits import in_words
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

#: A batch that the provider's queue has no room for is sent so many times, half as large each time.
_QUEUE_FULL = 12
#: If the budget covers less than this part of the requests, no batch is submitted: it would take a day for little.
_SMALLEST_PART = 0.02
#: How long a batch that may have been made is waited for before the provider's list is read, in seconds.
_LIST_LAG_S = 5.0
_OF_NO_USE = ("failed", "cancelled", "cancelling")
#: The longest wait for a file, in seconds. Then the batch is made all the same: some services never say that one is
#: processed, and those that need it refuse in words of their own.
_LONGEST_WAIT_S = 900.0
_LONGER = 1.5


class BatchSubmitter:
    """Cuts requests of one stage into batches, records them with their worst case, and submits them.

    Args:
        stage: The wire, ledger, store and budget to use.
        leave_usd: Returns the amount of the budget, in US dollars, to keep for the follow-up of one request.
    """

    def __init__(self, stage: BatchStage, leave_usd: Callable[[], float]) -> None:
        self._wire, self._ledger, self._stage, self._store = stage.wire, stage.ledger, stage.name, stage.store
        self._budget, self._limits, self._leave_usd = stage.budget, stage.limits, leave_usd
        limits = stage.limits
        self._token_room = math.inf if limits.enqueued_tokens is None else limits.enqueued_tokens
        self._queue_full = 0
        self._hold_until_s = 0.0

    # How much at once

    def holds_back_s(self) -> float:
        """Return for how many seconds nothing is sent, because the provider's queue was full."""
        return max(0.0, self._hold_until_s - time.monotonic())

    async def send(self, questions: Sequence[Question]) -> bool:
        """Submit as many batches as limits and budget allow now; return False if the budget was too small.

        Args:
            questions: What to ask, in this order.

        Raises:
            ServiceError: The service as a whole refuses or is not there.
        """
        while questions and not self.holds_back_s():
            under_way = self._store.under_way(self._stage)
            room = self._token_room - sum(record.prompt_tokens for record in under_way)
            if under_way and questions[0].prompt_tokens > room:
                break
            part = next_part(questions, self._limits, room)
            record = self._plan(part, fewest=math.ceil(_SMALLEST_PART * len(questions)))
            if record is None:
                return False
            await self._make(record)
            questions = questions[record.requests :]
        return True

    def _plan(self, part: Sequence[Question], fewest: int) -> BatchRecord | None:
        """Record as many requests as the budget allows, with their worst case; None if those are too few."""
        with self._ledger.transaction():
            held = self._reserve(part)
            if len(held) < min(fewest, len(part)):
                for one in held:
                    self._budget.release(one)
                return None
            part = part[: len(held)]
            content = hashlib.sha256()  # what tells a batch from others, whatever the order of its lines
            for each in sorted(part, key=lambda each: each.id):
                content.update(input_line(self._stage, each.id, each.body))
            record = self._store.plan(
                self._stage,
                base_url=self._wire.service.base_url,
                model=self._wire.service.model,
                requests=len(part),
                prompt_tokens=sum(each.prompt_tokens for each in part),
                content=content.hexdigest()[:32],
            )
            for each in part:
                self._ledger.record_sent(
                    self._stage, each.id, prompt_hash=prompt_hash(each.body), request=each.body
                )
                self._store.add(record, each.id)
        return record

    def _reserve(self, part: Sequence[Question]) -> list[Try]:
        """Reserve the worst case of each request in order, as far as the budget goes."""
        leave_usd = self._leave_usd()
        before = 1 + sum(record.requests for record in self._store.under_way(self._stage))
        held: list[Try] = []
        for each in part:
            one = self._budget.try_reserve(
                self._wire.service.model,
                each.body,
                stage=self._stage,
                id=each.id,
                batch=True,
                leave_usd=leave_usd * (before + len(held)),
            )
            if one is None:
                break
            held.append(one)
        return held

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
            ServiceError: The queue stays full, however small the batches.
        """
        self._queue_full += 1
        if self._queue_full > _QUEUE_FULL:
            raise self._wire.policy.stop(
                "the provider's batch queue stays full",
                RequestError("queue-full", words, "fault"),
                remedy="run the same command again later, or set batch.enqueued_tokens to your account's limit",
            )
        self._token_room = max(1, min(self._token_room, record.prompt_tokens) // 2)
        wait_s = self._limits.poll_s * self._queue_full if in_a_while else 0.0
        self._hold_until_s = time.monotonic() + wait_s
        log.info("%s: %s; submitting smaller batches, in %s", self._stage, words, in_words(wait_s))

    # The batch at the provider

    async def _make(self, record: BatchRecord) -> None:
        """Send a batch that the provider does not have."""
        with scratch_file(self._ledger.path.parent) as file:
            for id, body in self._store.bodies(record):
                file.write(input_line(record.stage, id, body))
            size = file.tell()
            file_id = await self._file_ready(record, file, size)
        tries = 0

        async def create() -> list[dict[str, Any]]:
            """Make the batch; or find it, where an answer that was lost may have said that it is made."""
            nonlocal tries
            found = await self.look_for(record) if tries else []
            if not found:
                tries += 1
                self._store.asking(record)
                found = [await self._wire.create(file_id, self._store.metadata(record))]
            return found

        made = await self._wire.retry(f"making a batch of the file {file_id}", create)
        if tries > 1:
            made = await self.look_for(record) or made
        assert made
        await self.adopt(record, made)
        id, megabytes = made[0]["id"], size / 1e6
        log.info("%s: batch %s sent, %d requests, %.1f MB", record.stage, id, record.requests, megabytes)

    async def look_for(self, record: BatchRecord) -> list[dict[str, Any]]:
        """Return the provider's batches that were made from a record, those of use first."""
        # A batch that was made a moment ago may not be in the list yet.
        await asyncio.sleep(min(_LIST_LAG_S, self._limits.poll_s))
        planned_at = datetime.datetime.fromisoformat(record.planned_at).timestamp()
        file_id = self._store.file_of(record) or ""
        found = await self._wire.find(self._store.metadata(record), planned_at, file_id)
        return sorted(found, key=lambda batch: read_state(batch.get("status")) in _OF_NO_USE)

    async def adopt(self, record: BatchRecord, made: Sequence[Mapping[str, Any]]) -> None:
        """Take the first of the provider's batches for the record's; any other is cancelled and counts as spent."""
        record = self._store.opened(record, str(made[0]["id"]))
        self._store.forget_file(record)
        for other in made[1:]:
            log.warning("batch %s was created twice; cancelling %s", made[0]["id"], other.get("id"))
            await self.cancel(str(other.get("id")))
            held = self._budget.open_batch(record.stage)
            with self._ledger.transaction():
                for id in self._store.members(record):
                    if id in held:
                        self._budget.forfeit_copy(held[id])

    async def cancel(self, batch_id: str) -> None:
        """Cancel a batch; a batch that has ended or is unknown is left alone."""
        await self._wire.retry(
            "cancelling a batch",
            lambda: self._wire.cancel(batch_id),
            none_if=lambda error: error.kind == "final" or error.code == "not-found" or " 409" in str(error),
        )

    # Its input file

    async def _file_ready(self, record: BatchRecord, content: IO[bytes], size: int) -> str:
        """Return the id of a batch's input file at the provider, sent if it is not there, once it may be used.

        Raises:
            ServiceError: The provider does not take the file, or cannot be reached.
        """
        known = self._store.file_of(record)
        file = await self._look_at_file(known) if known else None
        if file is None or read_file_state(file) == "failed":
            file = await self._send_file(record, content, size)
            known = str(file["id"])
            self._store.keep_file(record, known)
        else:
            log.info("%s: the file %s was sent by an earlier process", record.stage, known)
        assert known
        return await self._processed(record, file, known)

    async def _look_at_file(self, file_id: str) -> dict[str, Any] | None:
        """Return what the provider says about a file; None where it does not know the file, or files at all."""
        return await self._wire.retry(
            f"looking at the file {file_id}",
            lambda: self._wire.file(file_id),
            none_if=lambda error: error.code in UNSUPPORTED,
        )

    async def _send_file(self, record: BatchRecord, content: IO[bytes], size: int) -> dict[str, Any]:
        name = f"{record.stage}-{record.content}.jsonl"
        may_be_there = self._store.file_of(record) == ""

        async def send() -> dict[str, Any]:
            """Send the file; or find it, where an answer that was lost may have said that it is there."""
            nonlocal may_be_there
            if may_be_there:
                found = await self._wire.retry(
                    "looking for a file",
                    lambda: self._wire.find_file(name, size),
                    none_if=lambda error: error.code in UNSUPPORTED,
                )
                if found is not None:
                    return found
            self._store.keep_file(record, "")
            try:
                return await self._wire.upload(content, name)
            except RequestError as error:
                may_be_there = error.bill == "unknown"
                raise

        sent = await self._wire.retry("sending a batch's file", send)
        assert sent is not None
        return sent

    async def _processed(self, record: BatchRecord, file: dict[str, Any], file_id: str) -> str:
        """Wait until a file may be used."""
        since_s, wait_s, told = time.monotonic(), self._wire.service.first_wait_s, ""
        patience_s = min(_LONGEST_WAIT_S, self._wire.service.patience_s)
        while (state := read_file_state(file)) == "waiting":
            status = self._wire.words(str(file.get("status") or "not processed"))
            waited_s = time.monotonic() - since_s
            if waited_s > patience_s:
                log.warning(
                    "%s: the file %s is still %r after %s; creating the batch anyway",
                    record.stage, file_id, status, in_words(waited_s),
                )  # fmt: skip
                return file_id
            if status != told:
                told = status
                log.info(
                    "%s: the file %s is %r; waiting until it is processed", record.stage, file_id, status
                )
            await asyncio.sleep(min(wait_s, self._limits.poll_s))
            wait_s *= _LONGER
            file = await self._look_at_file(file_id) or {}
        if state == "failed":
            self._store.forget_file(record)
            said = file.get("status_details") or file.get("error") or "no reason is given"
            raise self._wire.policy.stop(
                "the provider could not process a batch's file",
                RequestError("bad-file", self._wire.words(f"{file.get('status')}: {said}"), "fatal"),
                remedy="run the same command again to send the file anew, or ask with `mode` live; nothing was run",
            )
        return file_id
