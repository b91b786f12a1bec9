"""The input file of a batch at its provider: sent once, waited for until it may be used, used again after a kill."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import IO, Any

from datagen.batch.files import BatchLimits
from datagen.batch.states import read_file_state
from datagen.batch.store import BatchRecord, BatchStore
from datagen.batch.wire import BatchWire
from datagen.service.limits import in_words
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

#: The longest wait for a file, in seconds. Then the batch is made all the same: some services never say that one is
#: processed, and those that need it refuse in words of their own.
_LONGEST_WAIT_S = 900.0
_LONGER = 1.5
_UNSUPPORTED = ("not-found", "bad-request")


class InputFiles:
    """Brings the input files of batches to a provider.

    Args:
        wire: To the provider.
        book: Where batches stand, and the files of those that are not made yet.
        limits: The longest wait between two looks.
    """

    def __init__(self, wire: BatchWire, book: BatchStore, limits: BatchLimits) -> None:
        self._wire, self._book, self._limits = wire, book, limits

    async def ready(self, record: BatchRecord, content: IO[bytes], size: int) -> str:
        """Return the id of a batch's input file at the provider, sent if it is not there, once it may be used.

        Args:
            record: The batch.
            content: What the file holds.
            size: Its size in bytes.

        Raises:
            ServiceError: The provider does not take the file, or cannot be reached.
        """
        file = await self._there(record)
        if file is None:
            file = await self._send(record, content, size)
            self._book.keep_file(record, str(file["id"]))
        else:
            log.info("%s: the file %s was sent by an earlier process", record.stage, file["id"])
        return await self._processed(record, file)

    async def _there(self, record: BatchRecord) -> dict[str, Any] | None:
        """Return the file that an earlier process sent; None where there is none, or none that is of use."""
        known = self._book.file_of(record)
        if not known:
            return None
        file = await self._if_supported(f"looking at the file {known}", lambda: self._wire.file(known))
        return None if file is None or read_file_state(file) == "failed" else {**file, "id": known}

    async def _send(self, record: BatchRecord, content: IO[bytes], size: int) -> dict[str, Any]:
        name = f"{record.stage}-{record.content}.jsonl"

        may_be_there = self._book.file_of(record) == ""

        async def send() -> dict[str, Any]:
            """Send the file; or find it, where an answer that was lost may have said that it is there."""
            nonlocal may_be_there
            if may_be_there:
                found = await self._if_supported(
                    "looking for a file", lambda: self._wire.find_file(name, size)
                )
                if found is not None:
                    return found
            self._book.keep_file(record, "")
            try:
                return await self._wire.upload(content, name)
            except RequestError as trouble:
                may_be_there = trouble.bill == "unknown"
                raise

        return await self._wire.insist("sending a batch's file", send)

    async def _processed(self, record: BatchRecord, file: dict[str, Any]) -> str:
        file_id = str(file["id"])
        since_s, wait_s, told = time.monotonic(), self._wire.service.first_wait_s, ""
        patience_s = min(_LONGEST_WAIT_S, self._wire.service.patience_s)
        while (state := read_file_state(file)) == "waiting":
            status = self._wire.words(str(file.get("status") or "not processed"))
            waited_s = time.monotonic() - since_s
            if waited_s > patience_s:
                log.warning(
                    "%s: the file %s is still %r after %s; making a batch of it all the same",
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
            what = f"looking at the file {file_id}"
            file = await self._if_supported(what, lambda: self._wire.file(file_id)) or {}
        if state == "failed":
            self._book.forget_file(record)
            said = file.get("status_details") or file.get("error") or "no reason is given"
            raise self._wire.stop(
                "the provider could not process a batch's file",
                RequestError("bad-file", self._wire.words(f"{file.get('status')}: {said}"), "fatal"),
                remedy="run the same command again to send the file anew, or ask with --mode live; nothing was run",
            )
        return file_id

    async def _if_supported(
        self, what: str, call: Callable[[], Awaitable[dict[str, Any] | None]]
    ) -> dict[str, Any] | None:
        """Ask about files; None where the service does not know the file, or says nothing about files."""

        async def ask() -> dict[str, Any] | None:
            try:
                return await call()
            except RequestError as trouble:
                if trouble.code in _UNSUPPORTED:
                    return None
                raise

        return await self._wire.insist(what, ask)
