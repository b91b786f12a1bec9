"""Calls of a provider's batch API: upload and download files; create, retrieve, list and cancel batches.

One call is one HTTP request (a search is several), and every failure is a :class:`RequestError`, as in
:mod:`datagen.service.wire`; :meth:`BatchWire.retry` retries a call for as long as that may help.
"""

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import IO, Any, TypeVar
from urllib.parse import quote

from datagen.batch.files import ENDPOINT, BatchLimits, Line
from datagen.batch.states import read_file_state, unwrapped
from datagen.batch.store import BatchStore
from datagen.errors import ServiceError
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.service.endpoint import Service
from datagen.service.error_body import read_error
from datagen.service.limits import Limits, in_words, read_limits
from datagen.service.retry import RetryPolicy
from datagen.service.wire import Answer, RequestError, Wire

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW = "24h"
_TRANSFER_S = 3600.0
_PAGE = 100
_MOST_PAGES = 1000
#: A batch is not looked for among those that are older than itself by more than this, in seconds.
_CLOCKS_DIFFER_S = 86400.0
_SECONDS_BETWEEN_REPORTS = 60.0
#: Error codes of a service that does not know an object, or does not have the operation.
UNSUPPORTED = ("not-found", "bad-request")


class Unlisted(ServiceError):
    """The service does not list its batches, so a batch that may have been created cannot be found."""


class BatchWire(Wire):
    """A connection to one service's batch API; an asynchronous context manager."""

    def __init__(self, service: Service, stage: str = "") -> None:
        super().__init__(service)
        self.policy = RetryPolicy(service, stage, batch=True)

    async def upload(self, file: IO[bytes], name: str) -> dict[str, Any]:
        """Upload an input file; return the provider's file object."""
        file.seek(0)
        content = {"files": {"file": (name, file)}, "body": {"purpose": "batch"}}
        return self._with_id(await self._call("POST", "files", _TRANSFER_S, **content))

    async def file(self, file_id: str) -> dict[str, Any]:
        """Return the provider's file object."""
        return unwrapped(await self._call("GET", f"files/{quote(file_id, safe='')}"))

    async def find_file(self, name: str, size: int) -> dict[str, Any] | None:
        """Return a usable uploaded file of this name and size; None if there is none."""
        for each in (
            _rows(await self._call("GET", "files", params={"purpose": "batch", "limit": _PAGE})) or ()
        ):
            same = each.get("filename") == name and each.get("bytes") in (None, size)
            if same and each.get("id") and read_file_state(each) != "failed":
                return each
        return None

    async def create(self, file_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Create a batch of an input file; return the provider's batch object."""
        body = {
            "input_file_id": file_id,
            "endpoint": ENDPOINT,
            "completion_window": WINDOW,
            "metadata": metadata,
        }
        return self._with_id(await self._call("POST", "batches", body=body))

    async def retrieve(self, batch_id: str) -> dict[str, Any]:
        """Return the provider's batch object."""
        data = unwrapped(await self._call("GET", f"batches/{quote(batch_id, safe='')}"))
        if not isinstance(data.get("status"), str):
            raise self._no_completion(data, "", Limits())
        return data

    async def cancel(self, batch_id: str) -> None:
        """Cancel a batch; it may take minutes to end."""
        await self._call("POST", f"batches/{quote(batch_id, safe='')}/cancel")

    async def find(
        self, metadata: Mapping[str, str], planned_at_s: float, file_id: str = ""
    ) -> list[dict[str, Any]]:
        """Return the batches with these metadata, or of this input file, the oldest first.

        Args:
            metadata: All of them must be there.
            planned_at_s: When the batch was recorded, in Unix time; batches older than a day before are not searched.
            file_id: The input file, for providers that keep no metadata; "" if unknown.
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

        async def page() -> dict[str, Any]:
            try:
                listed = await self._call("GET", "batches", params={"limit": _PAGE, **after})
                if _rows(listed) is None:
                    raise self._no_completion(listed, "", Limits())
                return listed
            except RequestError as error:
                if error.code not in UNSUPPORTED:
                    raise
                raise Unlisted(
                    "the service does not list its batches",
                    where=self.service.base_url,
                    found=str(error),
                    remedy="see on the provider's page whether the batch was made; give it up with `cancel_batches` "
                    "(its requests then count as spent)",
                ) from None

        for _ in range(_MOST_PAGES):
            # A search is many requests: a failed one is retried without starting over.
            listed = await self.retry("looking for a batch", page)
            assert listed is not None
            batches = _rows(listed) or []
            for batch in batches:
                yield batch
            newest_first = batches == sorted(batches, key=_made_at, reverse=True)
            if (
                not listed.get("has_more")
                or not batches
                or (newest_first and _made_at(batches[-1]) < oldest_s)
            ):
                return
            after = {"after": str(batches[-1].get("id"))}

    async def download(self, file_id: str, into: IO[bytes]) -> int:
        """Write a file's content to an empty file, from its beginning; return its size in bytes."""
        into.seek(0)
        into.truncate()
        path = f"files/{quote(file_id, safe='')}/content"
        async with self.receiving("GET", path, _TRANSFER_S, stream=True) as response:
            async for piece in response.aiter_bytes():
                into.write(piece)
        size = into.tell()
        into.seek(0)
        return size

    def read_line(self, line: Line) -> Answer:
        """Read the reply in a line of a batch's files like the reply to a single request.

        Raises:
            RequestError: It is not a usable reply; a request that the provider did not run is free.
        """
        if line.status == 200:
            return self._read(json.dumps(line.body), Limits())
        error = line.error or {}
        said = read_error(line.status or 0, line.body if line.status else error)
        known = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
        if (code := str(error.get("code") or "")) not in known:
            judged = self._judge(said, said.words or str(line.body), Limits())
            if judged is not None:
                raise judged
        words = self.words(said.words or code or "no reply")
        raise RequestError(
            known.get(code, "batch-error"), words, "fault", bill="none" if error else "unknown"
        )

    def _with_id(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the batch or file of a reply, which must have an id."""
        inner = unwrapped(data)
        if not isinstance(inner.get("id"), str) or not inner["id"]:
            raise self._no_completion(data, "", Limits())
        return inner

    async def _call(
        self, method: str, path: str, timeout_s: float | None = None, **content: Any
    ) -> dict[str, Any]:
        """Send one HTTP request and return its JSON object."""
        response = await self.send(method, path, timeout_s, **content)
        try:
            data = response.json()
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, list):
            data = {"data": data}  # a list without an envelope
        if not isinstance(data, dict):
            raise self._no_completion(data, response.text, read_limits(response.headers))
        return data

    async def retry(
        self,
        what: str,
        call: Callable[[], Awaitable[T]],
        *,
        if_unknown: str = "",
        none_if: Callable[[RequestError], bool] = lambda error: False,
    ) -> T | None:
        """Call until it succeeds, with exponential backoff; Retry-After is honoured.

        A service that never answered gets ``max_tries``; one that did is retried for ``patience_s``.

        Args:
            what: The operation, for messages, such as "looking at a batch".
            call: Raises a RequestError when it fails.
            if_unknown: The remedy if the service does not know the object (HTTP 404).
            none_if: Selects the errors for which None is returned.

        Raises:
            ServiceError: It cannot succeed, or has failed for too long.
        """
        failures, failing_since_s, reported_s = 0, 0.0, 0.0
        while True:
            try:
                result = await call()
            except RequestError as error:
                if none_if(error):
                    return None
                failures += 1
                # Counted from the first failure: uploading 200 MB may take longer than the patience.
                failing_since_s = failing_since_s or time.monotonic()
                asked_s, waited_s = error.limits.wait_s, time.monotonic() - failing_since_s
                if self.policy.concerns_all(error) or error.kind == "final":
                    unknown = error.code == "not-found"
                    words = (not unknown and error.what) or f"the service refuses {what}"
                    raise self.policy.stop(words, error, remedy=if_unknown if unknown else "") from None
                if asked_s is not None and self.policy.asks_too_much(asked_s):
                    raise self.policy.stop(
                        f"the service asks for a wait of {in_words(asked_s)}", error
                    ) from None
                hopeless = failures >= self.service.max_tries and not self.policy.answers
                if hopeless or waited_s > self.service.patience_s:
                    raise self.policy.stop(f"{what} fails, after {failures} tries", error) from None
                if failures == 1 or waited_s - reported_s >= _SECONDS_BETWEEN_REPORTS:
                    reported_s = waited_s
                    log.info("%s: %s; trying again", what, error)
                await asyncio.sleep(self.policy.wait_s(failures, asked_s))
            else:
                self.policy.answered()
                return result


@dataclasses.dataclass(frozen=True)
class BatchStage:
    """Everything needed to submit and collect the batches of one stage.

    Attributes:
        name: The ledger's stage.
        wire: The connection to the provider.
        ledger: Holds the requests and replies.
        store: Holds the batches.
        budget: Reserves the worst case of each request.
        limits: Limits on the size, the retries and the polling of batches.
    """

    name: str
    wire: BatchWire
    ledger: Ledger
    store: BatchStore
    budget: Budget
    limits: BatchLimits


def _rows(page: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the objects of a listing; None if it is not one."""
    rows = page.get("data")
    return [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else None


def _made_at(batch: Mapping[str, Any]) -> float:
    made_at = batch.get("created_at")
    return float(made_at) if isinstance(made_at, int | float) else 0.0
