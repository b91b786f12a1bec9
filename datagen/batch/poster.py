"""Sending batches so that none is sent twice: each is looked for at the provider before it is made once more.

A request to make a batch whose answer is lost may have been obeyed. So whenever that is possible, after a kill or a
broken connection, the provider's list is searched for the metadata of the batch first.
"""

import asyncio
import datetime
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from datagen.batch.files import BatchLimits, input_line, scratch_file
from datagen.batch.input_files import InputFiles
from datagen.batch.states import read_state
from datagen.batch.store import BatchRecord, BatchStore
from datagen.batch.wire import BatchWire
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

#: How long a batch that may have been made is waited for before the provider's list is read, in seconds.
_LIST_LAG_S = 5.0
_OF_NO_USE = ("failed", "cancelled", "cancelling")


class Poster:
    """Brings batches to a provider, finds them there, and asks for their end.

    Args:
        wire: To the provider.
        ledger: Where the requests stand.
        book: Where the batches stand.
        budget: Which holds the worst case of each of their requests.
        limits: How long to wait before the provider's list is trusted.
    """

    def __init__(
        self, wire: BatchWire, ledger: Ledger, book: BatchStore, budget: Budget, limits: BatchLimits
    ) -> None:
        self._wire, self._ledger, self._book = wire, ledger, book
        self._budget, self._limits = budget, limits
        self._files = InputFiles(wire, book, limits)

    async def make(self, record: BatchRecord) -> None:
        """Send a batch that the provider does not have."""
        with scratch_file(self._ledger.path.parent) as file:
            for id, body in self._book.bodies(record):
                file.write(input_line(record.stage, id, body))
            size = file.tell()
            file_id = await self._files.ready(record, file, size)
        tries = 0

        async def create() -> list[dict[str, Any]]:
            """Make the batch; or find it, where an answer that was lost may have said that it is made."""
            nonlocal tries
            if tries:
                found = await self.look_for(record)
                if found:
                    return found
            tries += 1
            self._book.asking(record)
            return [await self._wire.create(file_id, self._book.metadata(record))]

        made = await self._wire.insist(f"making a batch of the file {file_id}", create)
        if tries > 1:
            made = await self.look_for(record) or made
        await self.adopt(record, made)
        log.info(
            "%s: batch %s sent, %d requests, %.1f MB",
            record.stage,
            made[0]["id"],
            record.requests,
            size / 1e6,
        )

    async def look_for(self, record: BatchRecord) -> list[dict[str, Any]]:
        """Return the provider's batches that were made from a record, those of use first."""
        # A batch that was made a moment ago may not be in the list yet.
        await asyncio.sleep(min(_LIST_LAG_S, self._limits.poll_s))
        planned_at = datetime.datetime.fromisoformat(record.planned_at).timestamp()
        file_id = self._book.file_of(record) or ""
        found = await self._wire.find(self._book.metadata(record), planned_at, file_id)
        return sorted(found, key=lambda batch: read_state(batch.get("status")) in _OF_NO_USE)

    async def adopt(self, record: BatchRecord, made: Sequence[Mapping[str, Any]]) -> None:
        """Take the first of the provider's batches for the record's; any other is cancelled and counts as spent."""
        record = self._book.opened(record, str(made[0]["id"]))
        self._book.forget_file(record)
        for other in made[1:]:
            log.warning("batch %s was made twice; cancelling %s", made[0]["id"], other.get("id"))
            await self.ask_for_the_end(str(other.get("id")))
            held = self._budget.open_batch(record.stage)
            with self._ledger.transaction():
                for id in self._book.members(record):
                    if id in held:
                        self._budget.forfeit_copy(held[id])

    async def ask_for_the_end(self, batch_id: str) -> None:
        """Ask for the end of a batch; one that has ended or is not known is left alone."""

        async def cancel() -> None:
            try:
                await self._wire.cancel(batch_id)
            except RequestError as trouble:
                # One that has ended cannot be cancelled, and one that is not known need not be.
                if trouble.kind != "final" and trouble.code != "not-found" and " 409" not in str(trouble):
                    raise

        await self._wire.insist("cancelling a batch", cancel)
