"""Asking an OpenAI-compatible service: bounded tries, every outcome recorded, replies in the order asked.

A request that the ledger already holds as answered or failed is not asked again. A failure that concerns one
request (a refused prompt, a reply that never comes) is recorded and costs no other request its answer. A
failure that concerns all of them (a wrong key, an unknown model, a server that is not there) stops the run
with the provider's words; everything settled so far is kept.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from datagen.ledger import Entry, Ledger
from datagen.service.chat import ChatRequest, Sampling, prompt_hash
from datagen.service.requester import Requester
from datagen.service.stop import Stop
from datagen.service.wire import Service

if TYPE_CHECKING:
    from datagen.money.budget import Budget

T = TypeVar("T")

__all__ = ["ChatRequest", "Reply", "Sampling", "Service", "complete", "prompt_hash", "read_reply", "stream"]

#: Without a window, so many requests are drawn ahead of the next reply, for each that may be in flight.
AHEAD = 4
#: So many requests may be open (in flight, waiting for their turn, or before their next try), for each in flight.
OPEN_PER_SLOT = 32


@dataclasses.dataclass(frozen=True)
class Reply:
    """The outcome of a request: a text, or an ``error`` of the form "code: message".

    ``finish_reason`` is the service's ("stop", "length", ...); tokens are those the service reports; ``time``
    is when the request was settled, UTC.
    """

    id: str
    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    error: str = ""
    time: str = ""

    @property
    def error_code(self) -> str:
        """The first word of ``error``, such as "timeout"; "" where there is a text."""
        return self.error.split(":", 1)[0]


def complete(
    requests: Sequence[ChatRequest],
    service: Service,
    ledger: Ledger,
    *,
    stage: str,
    progress: Callable[[int, int], None] | None = None,
    budget: "Budget | None" = None,
) -> list[Reply]:
    """Ask all requests, several at a time, and return their replies in the order of the requests.

    Args:
        requests: What to ask; ids must differ.
        service: Where to ask.
        ledger: Remembers every outcome; what it holds is not asked again.
        stage: The ledger's stage under which the requests stand.
        progress: Called with (settled, total) each time a request is settled.
        budget: Reserves the worst case of every try and records its cost.

    Returns:
        One reply a request; a request that failed for good has ``error`` set.

    Raises:
        ServiceError: The service as a whole refuses or is not there, or the budget is reached.
        DataError: The ledger holds another prompt under the same id.
    """
    ids = [request.id for request in requests]
    assert len(set(ids)) == len(ids), "request ids must differ within a stage"
    total = len(requests)

    def tell(settled: int) -> None:
        if progress is not None:
            progress(settled, total)

    async def collect() -> list[Reply]:
        # All of them are wanted, so none waits for an earlier one.
        replies = _stream(requests, Requester(service, ledger, stage, budget), lambda: total, tell)
        return [reply async for reply in replies]

    return run_coroutine(collect())


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, even inside a running event loop, as in a notebook, which it blocks."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return asyncio.run(coroutine)
    finally:
        asyncio._set_running_loop(outer)


async def stream(
    requests: Iterable[ChatRequest],
    service: Service,
    ledger: Ledger,
    *,
    stage: str,
    window: Callable[[], int] | None = None,
    budget: "Budget | None" = None,
) -> AsyncGenerator[Reply, None]:
    """Yield replies in the order of the requests, while later requests are already in flight.

    Closing the iterator cancels what is in flight; those requests stay "sent" in the ledger and are asked
    again when they are needed. Where they cost money they are waited for instead, and not tried again.

    Args:
        requests: What to ask; drawn only as far as needed, so it may be endless.
        service: Where to ask.
        ledger: Remembers every outcome; what it holds is not asked again.
        stage: The ledger's stage.
        window: Tells how many requests may be drawn ahead of the reply that is yielded next, at least 1; the
            concurrency bounds what is in flight in any case. Without it, four times the concurrency.
        budget: Reserves the worst case of every try and records its cost.

    Raises:
        ServiceError: The service as a whole refuses or is not there, or the budget is reached.
        DataError: The ledger holds another prompt under the same id.
    """
    requester = Requester(service, ledger, stage, budget)
    window = window or (lambda: AHEAD * service.concurrency)
    async with contextlib.aclosing(_stream(requests, requester, window)) as replies:
        async for reply in replies:
            yield reply


async def _stream(
    requests: Iterable[ChatRequest],
    requester: Requester,
    window: Callable[[], int],
    settled: Callable[[int], None] = lambda settled: None,
) -> AsyncGenerator[Reply, None]:
    async with requester:
        flow = _Flow(requests, requester, window, settled)
        async with contextlib.aclosing(flow.replies()) as replies:
            async for reply in replies:
                yield reply


class _Flow:
    """Keeps requests in flight and hands their replies out in order.

    A request is drawn when there is room for one more in flight. One that waits before its next try gives its
    room away, within bounds: so one slow request holds up nothing but the replies behind it, and the number of
    requests that are neither settled nor untouched stays small.
    """

    def __init__(
        self,
        requests: Iterable[ChatRequest],
        requester: Requester,
        window: Callable[[], int],
        settled: Callable[[int], None],
    ) -> None:
        self._source: Iterator[ChatRequest] | None = iter(requests)
        self._requester, self._window, self._settled = requester, window, settled
        self._changed = requester.changed
        self._open: set[asyncio.Task[None]] = set()
        self._ready: dict[int, Reply] = {}
        self._drawn = self._given = 0
        self._failure: BaseException | None = None

    async def replies(self) -> AsyncGenerator[Reply, None]:
        """Yield the replies in order."""
        try:
            while True:
                self._draw()
                if self._failure is not None:
                    await self._drain()
                    raise self._failure
                if self._given in self._ready:
                    reply = self._ready.pop(self._given)
                    self._given += 1
                    yield reply
                    continue
                if not self._open:
                    return
                if self._requester.undecided == len(self._open):
                    self._requester.nobody_else()
                self._changed.clear()
                await self._changed.wait()
        except GeneratorExit:
            # The caller has enough replies. Requests in flight are billed anyway: wait for their token counts.
            if self._requester.budget is not None and self._requester.budget.held_usd > 0:
                await self._drain()
            raise
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _draw(self) -> None:
        """Take up as many requests as there is room for."""
        slots = self._requester.service.concurrency
        while (
            self._source is not None
            and self._failure is None
            and len(self._open) < OPEN_PER_SLOT * slots
            and len(self._open) - self._requester.resting < slots
            and self._drawn - self._given < max(1, self._window())
        ):
            request = next(self._source, None)
            if request is None:
                self._source = None
                return
            task = asyncio.ensure_future(self._ask(self._drawn, request))
            self._open.add(task)
            task.add_done_callback(self._close)
            self._drawn += 1

    async def _ask(self, order: int, request: ChatRequest) -> None:
        body = request.body(self._requester.service.model)
        self._ready[order] = read_reply(await self._requester.ask(order, request.id, body))
        self._settled(self._given + len(self._ready))

    def _close(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
        self._changed.set()

    async def _drain(self) -> None:
        """Wait for the requests in flight, which are billed anyway, unless they are bound to fail."""
        self._requester.close()
        if isinstance(self._failure, Stop) and self._failure.at_once:
            return
        while self._requester.in_flight:
            self._changed.clear()
            await self._changed.wait()


def read_reply(entry: Entry) -> Reply:
    """Return the reply that a settled ledger row holds."""
    return Reply(
        id=entry.id,
        text=entry.reply or "",
        finish_reason=entry.finish_reason or "",
        model=entry.model or "",
        prompt_tokens=entry.prompt_tokens or 0,
        completion_tokens=entry.completion_tokens or 0,
        error=entry.error or "",
        time=entry.finished_at or "",
    )
