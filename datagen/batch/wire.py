"""The wire to a provider's batch interface: files up and down, batches made, looked at, found again and cancelled.

One call is one HTTP request (a search is several), and whatever goes wrong is a :class:`RequestError`, as in
:mod:`datagen.service.wire`; :meth:`BatchWire.insist` repeats a call for as long as that may help.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import IO, Any, TypeVar

from datagen.batch.files import ENDPOINT, Line
from datagen.batch.states import read_file_state, unwrapped
from datagen.errors import ServiceError
from datagen.money.account import Bill
from datagen.service.circuit import backoff_s
from datagen.service.error_body import read_error
from datagen.service.limits import Limits, in_words, read_limits
from datagen.service.stop import stop_for
from datagen.service.wire import Answer, RequestError, Wire

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW = "24h"
_TRANSFER_S = 3600.0
#: So many refusals in a row of a key that was taken before mean it.
STRAYS_IN_A_ROW = 3
_PAGE = 100
_MOST_PAGES = 1000
#: A batch is not looked for among those that are older than itself by more than this, in seconds.
_CLOCKS_DIFFER_S = 86400.0
_SECONDS_BETWEEN_REPORTS = 60.0


class Unlisted(ServiceError):
    """The service does not tell which batches it has, so that one that may have been made cannot be found."""


class BatchWire(Wire):
    """A connection to one service's batch interface; an asynchronous context manager."""

    async def upload(self, file: IO[bytes], name: str) -> dict[str, Any]:
        """Send an input file; return what the provider says about it, its id among that."""
        file.seek(0)
        data = await self._call(
            lambda client: client.files.with_raw_response.create(file=(name, file), purpose="batch"),
            _TRANSFER_S,
        )
        return self._with_id(data)

    async def file(self, file_id: str) -> dict[str, Any]:
        """Return what the provider says about a file."""
        return unwrapped(await self._call(lambda client: client.files.with_raw_response.retrieve(file_id)))

    async def find_file(self, name: str, size: int) -> dict[str, Any] | None:
        """Return an uploaded file of this name and size; None where there is none that is of use."""
        page = await self._call(_list_files)
        rows = page.get("data")
        files = [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []
        for each in files:
            same = each.get("filename") == name and each.get("bytes") in (None, size)
            if same and each.get("id") and read_file_state(each) != "failed":
                return each
        return None

    async def create(self, file_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Make a batch of an input file; return it."""
        data = await self._call(
            lambda client: client.batches.with_raw_response.create(
                input_file_id=file_id, endpoint=ENDPOINT, completion_window=WINDOW, metadata=dict(metadata)
            )
        )
        return self._with_id(data)

    async def retrieve(self, batch_id: str) -> dict[str, Any]:
        """Return what the provider says about a batch."""
        data = unwrapped(await self._call(lambda client: client.batches.with_raw_response.retrieve(batch_id)))
        if not isinstance(data.get("status"), str):
            raise self._no_completion(data, "", Limits())
        return data

    async def cancel(self, batch_id: str) -> None:
        """Ask for the end of a batch; it may take minutes."""
        await self._call(lambda client: client.batches.with_raw_response.cancel(batch_id))

    async def find(
        self, metadata: Mapping[str, str], planned_at_s: float, file_id: str = ""
    ) -> list[dict[str, Any]]:
        """Return the batches with these metadata, or of this input file, the oldest first.

        Args:
            metadata: All of them must be there.
            planned_at_s: When the batch was written down, in Unix time; much older ones are not looked through.
            file_id: The input file, for providers that keep no metadata; "" if it is not known.
        """
        found = []
        async for batch in self._batches(planned_at_s - _CLOCKS_DIFFER_S):
            theirs = batch.get("metadata")
            same = isinstance(theirs, dict) and metadata.items() <= theirs.items()
            if same or (file_id and batch.get("input_file_id") == file_id):
                found.append(batch)
        return sorted(found, key=_made_at)

    async def _batches(self, oldest_s: float) -> AsyncIterator[dict[str, Any]]:
        after: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            # A search is many requests: one that fails costs not the whole search.
            page = await self.insist("looking for a batch", partial(self._page, after))
            rows = page.get("data")
            if not isinstance(rows, list):
                raise self._no_completion(page, "", Limits())
            batches = [each for each in rows if isinstance(each, dict)]
            for batch in batches:
                yield batch
            newest_first = batches == sorted(batches, key=_made_at, reverse=True)
            if not page.get("has_more") or not batches or (newest_first and _made_at(batches[-1]) < oldest_s):
                return
            after = {"after": str(batches[-1].get("id"))}

    async def _page(self, after: Mapping[str, str]) -> dict[str, Any]:
        try:
            return await self._call(partial(_list, after=after))
        except RequestError as trouble:
            if trouble.code not in ("not-found", "bad-request"):
                raise
            raise Unlisted(
                "the service does not list its batches",
                where=self.service.base_url,
                found=str(trouble),
                remedy="see on the provider's page whether the batch was made; give it up with --cancel-batches "
                "(its requests then count as spent)",
            ) from None

    async def download(self, file_id: str, into: IO[bytes]) -> None:
        """Write a file's content to an empty file, from its beginning."""
        await self.open()
        into.seek(0)
        into.truncate()
        with self._troubles(_TRANSFER_S):
            async with asyncio.timeout(_TRANSFER_S):
                streaming = self._client.files.with_streaming_response
                try:
                    async with streaming.content(file_id) as response:
                        async for piece in response.iter_bytes():
                            into.write(piece)
                except _http_error() as error:
                    raise self._broken_connection(error) from None
        into.seek(0)

    def read_line(self, line: Line) -> Answer:
        """Take the reply out of a line of a batch's files, as if it had come by itself.

        Raises:
            RequestError: It is no usable reply; what a provider did not run costs nothing.
        """
        if line.status == 200:
            return self._read(json.dumps(line.body), Limits())
        error = line.error or {}
        said = read_error(line.status or 0, line.body if line.status else error)
        known = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
        if (code := str(error.get("code") or "")) not in known:
            trouble = self._judge(said, said.words or str(line.body), Limits())
            if trouble is not None:
                raise trouble
        bill: Bill = "none" if error else "unknown"
        words = self._words(said.words or code or "no reply")
        raise RequestError(known.get(code, "batch-error"), words, "fault", bill=bill)

    def words(self, text: str) -> str:
        """Return a provider's words without the key, shortened."""
        return self._words(text)

    def _with_id(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return a batch or a file, which must have an id."""
        inner = unwrapped(data)
        if not isinstance(inner.get("id"), str) or not inner["id"]:
            raise self._no_completion(data, "", Limits())
        return inner

    async def _call(
        self, send: Callable[[Any], Awaitable[Any]], timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Send one HTTP request and return its JSON object."""
        await self.open()
        timeout_s = timeout_s or self.service.timeout_s
        with self._troubles(timeout_s):
            async with asyncio.timeout(timeout_s):
                raw = await send(self._client)
                text = raw.http_response.text
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if isinstance(data, list):
            data = {"data": data}  # a list without an envelope
        if not isinstance(data, dict):
            raise self._no_completion(data, text, read_limits(raw.http_response.headers))
        return data

    async def insist(self, what: str, call: Callable[[], Awaitable[T]], *, if_unknown: str = "") -> T:
        """Call until it succeeds, with growing waits; Retry-After is honoured.

        A service that was never reached gets ``max_tries``; one that was is waited for as long as the patience.

        Args:
            what: What is being done, for messages, such as "looking at a batch".
            call: Raises a RequestError when it fails.
            if_unknown: What to do where the service does not know what is spoken of (HTTP 404).

        Raises:
            ServiceError: It cannot succeed, or did not for too long.
        """
        failures, since_s, reported_s = 0, 0.0, 0.0
        while True:
            try:
                result = await call()
                self.reached = True
                return result
            except RequestError as trouble:
                failures += 1
                now_s = time.monotonic()
                since_s = since_s or now_s
                asked_s = trouble.limits.wait_s
                # A lone refusal of a key that was taken before is a proxy's whim, and not worth a night's work.
                stray = trouble.code == "unauthorized" and self.reached and failures < STRAYS_IN_A_ROW
                if trouble.kind in ("fatal", "final") and not stray:
                    remedy = if_unknown if trouble.code == "not-found" else ""
                    said = trouble.what if trouble.code != "not-found" else ""
                    raise self.stop(said or f"the service refuses {what}", trouble, remedy=remedy) from None
                if asked_s is not None and asked_s > self.service.patience_s:
                    raise self.stop(f"the service asks for a wait of {in_words(asked_s)}", trouble) from None
                hopeless = failures >= self.service.max_tries and not self.reached
                if hopeless or now_s - since_s > self.service.patience_s:
                    raise self.stop(f"{what} fails, after {failures} tries", trouble) from None
                if failures == 1 or now_s - reported_s >= _SECONDS_BETWEEN_REPORTS:
                    reported_s = now_s
                    log.info("%s: %s; trying again", what, trouble)
                wait_s = backoff_s(self.service.first_wait_s, failures)
                await asyncio.sleep(wait_s if asked_s is None else asked_s)

    #: Whether the service ever answered as it should.
    reached = False

    def stop(self, what: str, trouble: RequestError | None = None, *, remedy: str = "") -> ServiceError:
        """Return the error that ends a run resumably."""
        return stop_for(self.service, "", what, trouble, remedy=remedy, batch=True)


def _list(client: Any, *, after: Mapping[str, str]) -> Awaitable[Any]:
    listing: Awaitable[Any] = client.batches.with_raw_response.list(limit=_PAGE, **after)
    return listing


def _list_files(client: Any) -> Awaitable[Any]:
    listing: Awaitable[Any] = client.files.with_raw_response.list(purpose="batch", limit=_PAGE)
    return listing


def _made_at(batch: Mapping[str, Any]) -> float:
    made_at = batch.get("created_at")
    return float(made_at) if isinstance(made_at, int | float) else 0.0


def _http_error() -> type[Exception]:
    """Return the class of all errors of the HTTP library, of which there are two, that openai stands on."""
    import openai

    client = next(kind for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient")
    error: type[Exception] = sys.modules[client.__module__.partition(".")[0]].HTTPError
    return error
