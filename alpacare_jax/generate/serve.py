"""Binding the port and running the server until it is told to stop."""

import asyncio
import concurrent.futures
import contextlib
import errno
import functools
import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from alpacare_jax.errors import ServiceError
from alpacare_jax.generate.connections import Connection, Limits
from alpacare_jax.generate.worker import Worker

GRACE_S = 10.0
"""Seconds that unfinished replies get once the server is told to stop."""


def bind(host: str, port: int) -> socket.socket:
    """Bind the address to listen on.

    Args:
        host: Name or address.
        port: Port; 0 lets the system choose one.

    Raises:
        ServiceError: The port is in use, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=128, dualstack_ipv6=dual)
    except socket.gaierror as error:
        raise ServiceError("the host has no address", where=host, found=error.strerror) from None
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        other = "stop what listens there, or choose another port with --port (0 takes a free one)"
        raise ServiceError(
            f"port {port} is in use" if in_use else "the server cannot listen on the address",
            where=f"{host}:{port}",
            found=None if in_use else os.strerror(error.errno or 0),
            remedy=other if in_use else None,
        ) from None


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(uvicorn.Server):
    """A server that reports when it is ready, and that ends without an error when it is told to stop."""

    def __init__(self, config: uvicorn.Config, worker: Worker, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._worker, self._on_ready = worker, on_ready

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._worker.failure is not None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        timer = asyncio.get_running_loop().call_later(GRACE_S, self._worker.give_up)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The base class notes the signal and raises it again at the end; being told to stop is no failure.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def make_server(
    app: Starlette, worker: Worker, on_ready: Callable[[], None], limits: Limits | None = None
) -> uvicorn.Server:
    """Make a server that ends soon after its ``should_exit`` is set or the process is told to stop.

    Args:
        app: The application.
        worker: The engine's thread. Once it has failed the server ends; once the server ends it gives up the replies
            that take longer than :data:`GRACE_S` seconds.
        on_ready: Called once requests are accepted.
        limits: Limits on connections.
    """
    limits = limits or Limits()
    config = uvicorn.Config(
        app,
        http=functools.partial(Connection, limits=limits),  # type: ignore[arg-type]
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(GRACE_S) + 10,
        timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type]
    )
    return _Server(config, worker, on_ready)


def run(listener: socket.socket, server: uvicorn.Server) -> None:
    """Serve until SIGINT or SIGTERM; unfinished replies get :data:`GRACE_S` seconds.

    The event loop runs in a thread of its own, so that this also works where another is running, as in a notebook.

    Args:
        listener: A bound socket.
        server: From :func:`make_server`.
    """
    with (
        contextlib.closing(listener),
        concurrent.futures.ThreadPoolExecutor(1) as thread,
        server.capture_signals(),
    ):
        thread.submit(lambda: asyncio.run(server.serve(sockets=[listener]))).result()
