"""Connections with limits: a time to send a request, and a bound on their number."""

import asyncio
import dataclasses
import sys
from typing import Any

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from alpacare_jax.generate.refusals import error_body

HEADERS = 200
"""Headers of a request."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on what a client may use.

    Args:
        body_bytes: Largest body of a request.
        request_s: Seconds in which a request must have arrived whole, from the connection's opening or its first byte.
        idle_s: Seconds that a connection stays open between requests, and that a client may leave a reply unread.
        closing_s: Seconds in which a client may read the rest of what a closed connection was sent.
        connections: Connections at the same time. One more closes the one that has been without a request for longest.
        requests: Requests at the same time, so that ``/health`` always finds a connection free.
    """

    body_bytes: int = 32 << 20
    request_s: float = 60.0
    idle_s: float = 75.0
    closing_s: float = 5.0
    connections: int = 800
    requests: int = 700


class Connection(H11Protocol):
    """uvicorn's connection, with limits."""

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._arriving: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request; close an idle connection if there are too many."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Read received bytes."""
        super().data_received(data)
        # h11 has no public name for the bytes that a chunk says it holds, and takes up to 20 hexadecimal digits.
        chunk = getattr(self.conn._reader, "_bytes_in_chunk", 0)
        if chunk > self._limits.body_bytes:
            self._refuse(400, f"a chunk is larger than {self._limits.body_bytes:,} bytes")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        super().connection_lost(exc)
        for clock in (self._arriving, self._unread):
            if clock is not None:
                clock.cancel()

    def pause_writing(self) -> None:
        """Wait for the client to read, for a limited time."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._limits.idle_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock: the client has read."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def on_response_complete(self) -> None:
        """Start the clock of the next request."""
        super().on_response_complete()
        self._since = self.loop.time()
        if self.transport.is_closing():
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which no further request came."""
        super().timeout_keep_alive_handler()
        self._close()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, or headers that are too long, with h11's status."""
        self._refuse(getattr(sys.exc_info()[1], "error_status_hint", 400), msg)

    @property
    def _awaits(self) -> bool:
        """Whether a request is waited for, or has not arrived whole."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered or self.conn.their_state is h11.SEND_BODY

    def _watch(self) -> None:
        """Run the clock while a request is arriving."""
        arriving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if not arriving and self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None
        elif arriving and self._arriving is None:
            self._arriving = self.loop.call_later(self._limits.request_s, self._give_up)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:
            self._refuse(408, f"the request did not arrive whole within {self._limits.request_s:g} s")
        else:
            self._close()

    def _make_room(self) -> None:
        others = [each for each in self.connections if each is not self and not each.transport.is_closing()]
        if len(others) < self._limits.connections:
            return
        idle = [each for each in others if isinstance(each, Connection) and each._awaits]
        if idle:
            min(idle, key=lambda each: each._since).transport.abort()
        else:
            self._refuse(503, "the server has too many connections")

    def _refuse(self, status: int, message: str) -> None:
        """Answer in place of the application, unless a response has begun, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reply = JSONResponse(error_body(message), status, headers={"connection": "close"})
            head = h11.Response(status_code=status, headers=reply.raw_headers)
            for event in (head, h11.Data(data=bytes(reply.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self._close()

    def _close(self) -> None:
        """Close, and drop what the client does not read in time."""
        self.transport.close()
        self.loop.call_later(self._limits.closing_s, self.transport.abort)


class Gate:
    """Answers 503 to requests beyond a number; ``/health`` is always let through if it is HTTP/1 of some headers."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most, self._under_way = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if refused := self._refuse(scope):
            await refused(scope, receive, send)
            return
        self._under_way += scope["path"] != "/health"
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= scope["path"] != "/health"

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        version, headers = scope["http_version"], len(scope["headers"])
        close = {"connection": "close"}
        if not version.startswith("1."):
            said = f"HTTP/{version} is not supported; this server speaks HTTP/1.1"
            return JSONResponse(error_body(said), 505, headers=close)
        if headers > HEADERS:
            said = f"the request has {headers} headers; this server takes {HEADERS}"
            return JSONResponse(error_body(said), 431, headers=close)
        if self._under_way >= self._most and scope["path"] != "/health":
            said = f"{self._most} requests are being answered already"
            return JSONResponse(error_body(said, kind="server_error"), 503, headers={"retry-after": "1"})
        return None
