"""Serve an application for the length of a block."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from snapd.api.connections import Bounds, Gate, Gates, fit_to_open_files, requests_hold_the_gate
from snapd.api.listening import BACKLOG
from snapd.model.addresses import parse_listen
from snapd.model.errors import AccessDenied, ActionFailed
from snapd.runtime.background import background_tasks

STOP_SECONDS = 1.0
"""Requests that still run when serving ends may go on about this long, then are cancelled."""
CLEANUP_SECONDS = 5.0
"""aiohttp waits twice for `STOP_SECONDS` before it cancels; this bounds the whole."""
LINGER_SECONDS = 1.0
"""A body that nobody wants is taken and thrown away for this long, so that the client that still
sends it can read its answer."""
ON_SOCKET = Bounds()
ON_TCP = Bounds(connections_max=256, per_client_max=192)


Accept = Callable[[], asyncio.Protocol]
"""Makes the protocol of one connection."""


class _BadRequestsAreNoEvents(logging.Filter):
    """Drop what the server says of bytes that are not HTTP: the client was answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_server_logger = logging.getLogger("snapd.api.http")
_server_logger.addFilter(_BadRequestsAreNoEvents())


@asynccontextmanager
async def serve_socket(
    app: web.Application, listener: socket.socket, *, bounds: Bounds = ON_SOCKET
) -> AsyncIterator[None]:
    """Serve on a socket that is bound already."""
    async with _gated_runner(app, bounds) as (runner, accept):
        await _Site(runner, accept, listener).start()
        yield


@asynccontextmanager
async def serve_tcp(
    app: web.Application, listen: str, *, or_any_port: bool = False, bounds: Bounds = ON_TCP
) -> AsyncIterator[str]:
    """Serve at a TCP address; yields the address in use, which tells the port if that was 0.

    With `or_any_port` a port that is taken is replaced by a free one. Raises `InvalidConfig`,
    `AccessDenied` or `ActionFailed` naming the address.
    """
    host, port = parse_listen(listen)
    async with _gated_runner(app, bounds) as (runner, accept):
        try:
            await _start_tcp(runner, accept, host, port, or_any_port=or_any_port)
        except PermissionError as error:
            raise AccessDenied(f"may not listen at {listen}: {error.strerror}") from error
        except OSError as error:
            raise ActionFailed(
                f"can't listen at {listen}: {error.strerror or error}",
                hint="Choose another `[daemon] listen`; an empty one turns health and metrics off.",
            ) from error
        shown, used = runner.addresses[0][:2]
        yield f"[{shown}]:{used}" if ":" in shown else f"{shown}:{used}"


async def _start_tcp(
    runner: web.AppRunner, accept: Accept, host: str, port: int, *, or_any_port: bool
) -> None:
    site = _Site(runner, accept, (host, port))
    try:
        await site.start()
    except OSError:
        if not or_any_port:
            raise
        await site.stop()
        await _Site(runner, accept, (host, 0)).start()


@asynccontextmanager
async def _gated_runner(
    app: web.Application, bounds: Bounds
) -> AsyncIterator[tuple[web.AppRunner, Accept]]:
    """Set an application up, and what makes the protocol of each of its connections."""
    app.middlewares.insert(0, requests_hold_the_gate)
    gates = Gates(fit_to_open_files(bounds), asyncio.get_running_loop().time)
    async with _runner(app, bounds) as runner, background_tasks() as tasks:
        tasks.start_soon(gates.keep_cutting)
        server = runner.server
        assert server is not None
        yield runner, lambda: Gate(gates, server())


@asynccontextmanager
async def _runner(app: web.Application, bounds: Bounds) -> AsyncIterator[web.AppRunner]:
    """Set an application up. A handler is cancelled when its client goes away."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_server_logger,
        auto_decompress=False,
        handle_signals=False,
        handler_cancellation=True,
        lingering_time=LINGER_SECONDS,
        keepalive_timeout=bounds.idle_seconds,
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    try:
        yield runner
    finally:
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await runner.cleanup()


class _Site(web.BaseSite):
    """A site on a Unix socket that listens already, or on a TCP address."""

    __slots__ = ("_accept", "_where")

    def __init__(
        self, runner: web.AppRunner, accept: Accept, where: socket.socket | tuple[str, int]
    ) -> None:
        super().__init__(runner)
        self._accept = accept
        self._where = where

    @property
    def name(self) -> str:
        """Name the place for aiohttp's own messages."""
        return f"http://{self._where[0]}" if isinstance(self._where, tuple) else "http://unix"

    async def start(self) -> None:
        """Begin to accept connections."""
        await super().start()
        loop = asyncio.get_running_loop()
        if isinstance(self._where, tuple):
            host, port = self._where
            self._server = await loop.create_server(
                self._accept, host or None, port, backlog=BACKLOG
            )
        else:
            self._server = await loop.create_unix_server(
                self._accept, sock=self._where, backlog=BACKLOG
            )
