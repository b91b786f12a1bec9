"""Asking an OpenAI-compatible service: bounded tries, every outcome recorded, replies in the order asked.

A request that the ledger already holds as answered or failed is not asked again. A failure that concerns one
request (a refused prompt, a reply that never comes) is recorded and costs no other request its answer. A
failure that concerns all of them (a wrong key, an unknown model, a server that is not there) stops the run
with the provider's words; everything settled so far is kept.
"""

import asyncio
import dataclasses
import hashlib
import json
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

from datagen.errors import ConfigError, ServiceError
from datagen.ledger import Entry, Ledger
from datagen.wire import Service, Trouble, Wire

__all__ = ["ChatRequest", "Reply", "Sampling", "Service", "complete", "prompt_hash", "read_reply", "stream"]

log = logging.getLogger(__name__)

#: This many requests in a row that fail for good mean that the service, not the requests, is ill.
FAILURES_IN_A_ROW = 5
LONGEST_WAIT_S = 60.0


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a reply is drawn; ``max_tokens`` bounds it, ``seed`` is sent only where it is set."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        bounds = (
            ("temperature", 0, 2),
            ("top_p", 0, 1),
            ("presence_penalty", -2, 2),
            ("max_tokens", 1, 2**31),
        )
        for name, low, high in bounds:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{name} is out of range", found=getattr(self, name), expected=f"{low} to {high}"
                )


@dataclasses.dataclass(frozen=True)
class ChatRequest:
    """One question to a chat model; ``id`` is unique within its stage."""

    id: str
    messages: tuple[dict[str, str], ...]
    sampling: Sampling

    def body(self, model: str) -> dict[str, Any]:
        """Return the body of the HTTP request."""
        sampling = self.sampling
        body: dict[str, Any] = {
            "model": model,
            "messages": list(self.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "presence_penalty": sampling.presence_penalty,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        return body


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came of a request: a text, or an ``error`` "code: words" that says why there is none.

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
) -> list[Reply]:
    """Ask all requests, several at a time, and return their replies in the order of the requests.

    Args:
        requests: What to ask; ids must differ.
        service: Where to ask.
        ledger: Remembers every outcome; what it holds is not asked again.
        stage: The ledger's stage under which the requests stand.
        progress: Called with (settled, total) each time a reply is ready in order.

    Returns:
        One reply a request; a request that failed for good has ``error`` set.

    Raises:
        ServiceError: The service as a whole refuses or is not there.
        DataError: The ledger holds another prompt under the same id.
    """
    ids = [request.id for request in requests]
    assert len(set(ids)) == len(ids), "request ids must differ within a stage"

    async def collect() -> list[Reply]:
        replies = []
        async for reply in stream(requests, service, ledger, stage=stage):
            replies.append(reply)
            if progress is not None:
                progress(len(replies), len(requests))
        return replies

    return asyncio.run(collect())


async def stream(
    requests: Iterable[ChatRequest],
    service: Service,
    ledger: Ledger,
    *,
    stage: str,
    window: Callable[[], int] | None = None,
) -> AsyncGenerator[Reply, None]:
    """Yield replies in the order of the requests, while later requests are already in flight.

    Closing the iterator cancels what is in flight; those requests stay "sent" in the ledger and are asked
    again when they are needed.

    Args:
        requests: What to ask; drawn only as far as needed, so it may be endless.
        service: Where to ask.
        ledger: Remembers every outcome; what it holds is not asked again.
        stage: The ledger's stage.
        window: Tells how many requests may be drawn ahead of the reply that is yielded next, at least 1; the
            concurrency bounds what is in flight in any case.

    Raises:
        ServiceError: The service as a whole refuses or is not there.
        DataError: The ledger holds another prompt under the same id.
    """
    waiting: deque[asyncio.Task[Reply]] = deque()
    source = iter(requests)
    async with _Asker(service, ledger, stage) as asker:
        try:
            while True:
                room = 4 * service.concurrency if window is None else max(1, window())
                while len(waiting) < room and sum(not task.done() for task in waiting) < service.concurrency:
                    request = next(source, None)
                    if request is None:
                        break
                    waiting.append(asyncio.ensure_future(asker.ask(request)))
                if not waiting:
                    return
                if not waiting[0].done():
                    running = [task for task in waiting if not task.done()]
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                # A later request may meet the failure that stops the run while the first one still waits.
                for task in waiting:
                    if task.done() and task.exception() is not None:
                        task.result()
                while waiting and waiting[0].done():
                    yield waiting.popleft().result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


class _Asker:
    """Asks single requests of one service and settles each in the ledger. Limits and prices will act here."""

    def __init__(self, service: Service, ledger: Ledger, stage: str) -> None:
        self.service, self.ledger, self.stage = service, ledger, stage
        self._wire = Wire(service)
        self._failed_in_a_row: list[tuple[str, Trouble]] = []
        self._said_unreachable = False

    async def __aenter__(self) -> "_Asker":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.__aexit__()

    async def ask(self, request: ChatRequest) -> Reply:
        """Return the ledger's settled reply, or ask until there is one or the tries are used up."""
        body = request.body(self.service.model)
        fingerprint = prompt_hash(body)
        entry = self.ledger.get(self.stage, request.id, prompt_hash=fingerprint)
        if entry is None or entry.state == "sent":
            for tried in range(1, self.service.max_tries + 1):
                self.ledger.record_sent(self.stage, request.id, prompt_hash=fingerprint, request=body)
                try:
                    reply = await self._wire.post(body)
                except Trouble as trouble:
                    if trouble.fatal:
                        raise self._stop(trouble.fatal, trouble) from None
                    if not trouble.again or tried == self.service.max_tries:
                        self._give_up(request.id, trouble, tried)
                        break
                    await self._wait(request.id, trouble, tried)
                else:
                    self._failed_in_a_row.clear()
                    self.ledger.record_reply(self.stage, request.id, **reply)
                    break
            entry = self.ledger.get(self.stage, request.id)
            assert entry is not None
        return read_reply(entry)

    async def _wait(self, id: str, trouble: Trouble, tried: int) -> None:
        """Wait before the next try: as long as the service asks, else a random part of a doubling time."""
        first_s = self.service.first_wait_s
        if trouble.wait_s is not None:
            wait_s = trouble.wait_s + random.uniform(0, first_s / 4)
        else:
            wait_s = random.uniform(0, min(LONGEST_WAIT_S, first_s * 2 ** (tried - 1)))
        # A server that is not there fails every request alike; one line says it.
        level = logging.DEBUG if trouble.code == "unreachable" and self._said_unreachable else logging.INFO
        self._said_unreachable |= trouble.code == "unreachable"
        tries = self.service.max_tries
        log.log(level, "%s %s: %s; try %d of %d in %.1f s", self.stage, id, trouble, tried + 1, tries, wait_s)
        await asyncio.sleep(wait_s)

    def _give_up(self, id: str, trouble: Trouble, tried: int) -> None:
        """Record that a request failed for good; stop the run where the service itself is ill."""
        if trouble.code == "unreachable":
            raise self._stop("the service cannot be reached", trouble)
        tries = f" (after {tried} tries)" if tried > 1 else ""
        self.ledger.record_failure(self.stage, id, error=f"{trouble}{tries}")
        log.warning("%s %s failed: %s%s", self.stage, id, trouble, tries)
        if trouble.code == "content-filter":
            self._failed_in_a_row.clear()
            return
        self._failed_in_a_row.append((id, trouble))
        if len(self._failed_in_a_row) >= FAILURES_IN_A_ROW:
            for failed_id, failed in self._failed_in_a_row:
                if failed.again:
                    self.ledger.reopen(self.stage, failed_id)
            raise self._stop(f"{FAILURES_IN_A_ROW} requests in a row failed", trouble)

    def _stop(self, what: str, trouble: Trouble) -> ServiceError:
        remedies = {
            "unauthorized": f"check the key in the environment variable {self.service.api_key_env}",
            "not-found": "check the model's name and the base URL, which usually ends in /v1",
            "quota": "add credit at the provider, then run the same command again",
            "unreachable": "start the server or mend the base URL, then run the same command again",
        }
        return ServiceError(
            what,
            where=f"{self.service.base_url}, model {self.service.model}",
            found=str(trouble),
            remedy=remedies.get(trouble.code, "run the same command again later; what was answered is kept"),
        )


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


def prompt_hash(body: dict[str, Any]) -> str:
    """Return the fingerprint (SHA-256, hexadecimal) of a request's body: model, messages and sampling."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
