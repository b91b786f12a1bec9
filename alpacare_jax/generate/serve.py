"""Binding the port and running the server until it is told to stop."""

import asyncio
import contextlib
import errno
import functools
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from alpacare_jax.errors import ServiceError
from alpacare_jax.generate.connections import Connection, Limits

logger = logging.getLogger(__name__)

GRACE_S = 10.0
"""Seconds that replies under way have once the server is told to stop."""


def bind(host: str, port: int) -> socket.socket:
    """Bind the address to listen on.

    Args:
        host: Name or address.
        port: Port; 0 lets the system choose one.

    Raises:
        ServiceError: The port is in use, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ServiceError("the host has no address", where=host, found=error.strerror) from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ServiceError(
                f"port {port} is in use",
                where=f"{host}:{port}",
                remedy="stop what listens there, or choose another port with --port (0 takes a free one)",
            ) from None
        raise ServiceError(
            "the address cannot be listened on", where=f"{host}:{port}", found=error.strerror
        ) from None
    return listener


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(uvicorn.Server):
    """A server that says when it is ready, and that ends quietly when it is told to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        give_up: Callable[[], None],
        failed: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self._on_ready, self._give_up, self._failed = on_ready, give_up, failed

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._failed()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        timer = asyncio.get_running_loop().call_later(GRACE_S, self._give_up)
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
    app: Starlette,
    on_ready: Callable[[], None],
    give_up: Callable[[], None],
    failed: Callable[[], bool] = lambda: False,
    limits: Limits | None = None,
) -> uvicorn.Server:
    """Make a server that ends soon after its ``should_exit`` is set or the process is told to stop.

    Args:
        app: The application.
        on_ready: Called once requests are accepted.
        give_up: Called when replies under way have had :data:`GRACE_S` seconds to end; it must end them.
        failed: Asked now and then; the server ends once it returns true.
        limits: What connections may take.
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
    return _Server(config, on_ready, give_up, failed)


def run(listener: socket.socket, server: uvicorn.Server) -> None:
    """Serve until SIGINT or SIGTERM; replies under way get some seconds to end.

    Args:
        listener: A bound socket.
        server: From :func:`make_server`.
    """
    with contextlib.closing(listener):
        asyncio.run(server.serve(sockets=[listener]))
