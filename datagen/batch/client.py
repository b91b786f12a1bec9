"""Asking through a provider's batch interface: slower, usually at half the price, and as safe as asking one by one.

:func:`stream_in_batches` and :func:`complete_in_batches` do what :func:`datagen.client.stream` and
:func:`datagen.client.complete` do, on the same ledger and under the same ids. So a work folder may change between
both ways of asking, and the same replies give the same result.
"""

import contextlib
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from datagen.batch.files import BatchLimits
from datagen.batch.runner import BatchesUnderWay, BatchRunner
from datagen.batch.store import BatchRecord, BatchStore, describe
from datagen.client import Reply, read_reply, run_coroutine
from datagen.errors import DataError
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.service.chat import ChatRequest, prompt_hash
from datagen.service.wire import Service

__all__ = [
    "BatchLimits",
    "BatchesUnderWay",
    "cancel_batches",
    "collect_batches",
    "complete_in_batches",
    "describe",
    "stream_in_batches",
]


async def stream_in_batches(
    requests: Iterable[ChatRequest],
    service: Service,
    ledger: Ledger,
    *,
    stage: str,
    wanted: Callable[[Sequence[Reply]], int],
    budget: Budget,
    limits: BatchLimits,
    wait: bool = True,
    leave_usd: Callable[[], float] = lambda: 0.0,
) -> AsyncGenerator[Reply, None]:
    """Yield replies in the order of the requests, and ask in rounds for as many as are thought to be needed.

    Args:
        requests: What to ask; drawn only as far as needed.
        service: Where to ask.
        ledger: Remembers every outcome; what it holds is not asked again.
        stage: The ledger's stage.
        wanted: Tells how many more replies are needed. It is asked when one is missing, with those behind it that
            are in: they cannot be taken yet, and a day that is spent on the missing one should not be its alone.
        budget: Sets the worst case of a whole batch aside before it is sent.
        limits: How batches are cut, sent again and waited for.
        wait: Wait for replies; otherwise leave as soon as everything that can be sent is under way.
        leave_usd: Tells what must be left of a budget, in US dollars, for what follows from one request.

    Raises:
        BatchesUnderWay: Nothing more can be done now, and ``wait`` is false.
        ServiceError: The service as a whole refuses or is not there, or the budget is reached.
        DataError: The ledger holds another prompt under the same id.
    """
    source = iter(requests)
    ahead: deque[ChatRequest] = deque()
    known = 0
    async with contextlib.AsyncExitStack() as stack:
        run: BatchRunner | None = None
        while True:
            if not ahead:
                ahead.extend(islice(source, 1))
            if not ahead:
                return
            reply = _settled(ledger, stage, ahead[0], service)
            if reply is not None:
                ahead.popleft()
                known += 1
                yield reply
                continue
            source = _draw_asked(ahead, source, ledger, stage)
            settled = [(request, _settled(ledger, stage, request, service)) for request in ahead]
            replies = [reply for _, reply in settled if reply is not None]
            missing = [request for request, reply in settled if reply is None]
            needed = max(1, wanted(replies))
            # The first round is estimated from nothing; a later one should be the last.
            needed += math.ceil(needed * limits.surplus) if known or replies else 0
            fresh = list(islice(source, max(0, needed - len(missing))))
            ahead.extend(fresh)
            if run is None:
                run = await stack.enter_async_context(
                    BatchRunner(service, ledger, stage, budget, limits, wait, leave_usd=leave_usd)
                )
            await run.ask_once([*missing, *fresh])


def _draw_asked(
    ahead: deque[ChatRequest], source: Iterator[ChatRequest], ledger: Ledger, stage: str
) -> Iterator[ChatRequest]:
    """Take from the source what was asked before; return the rest of it."""
    for request in source:
        if ledger.get(stage, request.id) is None:
            return chain([request], source)
        ahead.append(request)
    return iter(())


def complete_in_batches(
    requests: Sequence[ChatRequest],
    service: Service,
    ledger: Ledger,
    *,
    stage: str,
    budget: Budget,
    limits: BatchLimits,
    wait: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Reply]:
    """Ask all requests and return their replies in the order of the requests.

    Args:
        requests: What to ask; ids must differ.
        service: Where to ask.
        ledger: Remembers every outcome; what it holds is not asked again.
        stage: The ledger's stage.
        budget: Sets the worst case of a whole batch aside before it is sent.
        limits: How batches are cut, sent again and waited for.
        wait: Wait for replies; otherwise leave as soon as everything that can be sent is under way.
        progress: Called with (settled, total) whenever something is known anew.

    Raises:
        BatchesUnderWay: Nothing more can be done now, and ``wait`` is false.
        ServiceError: The service as a whole refuses or is not there, or the budget is reached.
        DataError: The ledger holds another prompt under the same id.
    """
    ids = [request.id for request in requests]
    assert len(set(ids)) == len(ids), "request ids must differ within a stage"
    total = len(requests)

    def tell() -> None:
        if progress is not None:
            counts = ledger.counts().get(stage, {"answered": 0, "failed": 0})
            progress(min(total, counts["answered"] + counts["failed"]), total)

    async def ask() -> None:
        async with BatchRunner(service, ledger, stage, budget, limits, wait, watch=tell) as run:
            await run.settle(requests)

    run_coroutine(ask())
    tell()
    replies = [_settled(ledger, stage, request, service) for request in requests]
    return [reply for reply in replies if reply is not None]


def collect_batches(
    services: Mapping[str, Service], ledger: Ledger, budget: Budget, limits: BatchLimits
) -> None:
    """Bring in what ended batches hold, before a run asks in another way.

    Args:
        services: The service of each stage.
        ledger: The ledger.
        budget: Its budget.
        limits: As in batch mode.

    Raises:
        DataError: Batches are still under way; their requests would be paid for twice.
        ServiceError: The service cannot say how far they are.
    """
    run_coroutine(_over_all(services, ledger, budget, limits, BatchRunner.look_once))
    open_ = BatchStore(ledger).under_way()
    if open_:
        raise DataError(
            "requests of this work folder are in batches that are under way",
            where=", ".join(record.batch_id or record.key for record in open_),
            found=describe(open_),
            expected="none: asking them one by one as well would be paid for twice",
            remedy="wait for them with `mode` batch, or end them with `cancel_batches`",
        )


def cancel_batches(
    services: Mapping[str, Service], ledger: Ledger, budget: Budget, limits: BatchLimits
) -> list[BatchRecord]:
    """Cancel every batch that is under way, and collect its results.

    A batch that its provider no longer knows counts as spent at its worst case.

    Returns:
        The batches that were ended.
    """
    before = BatchStore(ledger).under_way()
    run_coroutine(_over_all(services, ledger, budget, limits, BatchRunner.cancel))
    return [BatchStore(ledger).get(record.number) for record in before]


async def _over_all(
    services: Mapping[str, Service],
    ledger: Ledger,
    budget: Budget,
    limits: BatchLimits,
    act: Callable[[BatchRunner], object],
) -> None:
    for stage, service in services.items():
        if BatchStore(ledger).under_way(stage):
            async with BatchRunner(service, ledger, stage, budget, limits) as run:
                await act(run)  # type: ignore[misc]


def _settled(ledger: Ledger, stage: str, request: ChatRequest, service: Service) -> Reply | None:
    entry = ledger.settled(stage, request.id, prompt_hash=prompt_hash(request.body(service.model)))
    return None if entry is None else read_reply(entry)
