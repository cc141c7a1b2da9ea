"""Serve an application for the length of a block."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from snapd.api.listening import BACKLOG, parse_listen
from snapd.model.errors import AccessDenied, ActionFailed

STOP_SECONDS = 1.0
"""Requests that still run when serving ends may go on about this long, then are cancelled."""
CLEANUP_SECONDS = 5.0
"""aiohttp waits twice for `STOP_SECONDS` before it cancels; this bounds the whole."""


class _BadRequestsAreNoEvents(logging.Filter):
    """Drop what the server says of bytes that are not HTTP: the client was answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_server_logger = logging.getLogger("snapd.api.http")
_server_logger.addFilter(_BadRequestsAreNoEvents())


@asynccontextmanager
async def serve_socket(app: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    """Serve on a socket that is bound already."""
    async with _runner(app) as runner:
        await _BoundSite(runner, listener).start()
        yield


@asynccontextmanager
async def serve_tcp(
    app: web.Application, listen: str, *, or_any_port: bool = False
) -> AsyncIterator[str]:
    """Serve at a TCP address; yields the address in use, which tells the port if that was 0.

    With `or_any_port` a port that is taken is replaced by a free one. Raises `InvalidConfig`,
    `AccessDenied` or `ActionFailed` naming the address.
    """
    host, port = parse_listen(listen)
    async with _runner(app) as runner:
        try:
            await _start_tcp(runner, host, port, or_any_port=or_any_port)
        except PermissionError as error:
            raise AccessDenied(f"may not listen at {listen}: {error.strerror}") from error
        except OSError as error:
            raise ActionFailed(
                f"can't listen at {listen}: {error.strerror or error}",
                hint="Choose another `[daemon] listen`; an empty one turns health and metrics off.",
            ) from error
        shown, used = runner.addresses[0][:2]
        yield f"[{shown}]:{used}" if ":" in shown else f"{shown}:{used}"


async def _start_tcp(runner: web.AppRunner, host: str, port: int, *, or_any_port: bool) -> None:
    site = web.TCPSite(runner, host or None, port)
    try:
        await site.start()
    except OSError:
        if not or_any_port:
            raise
        await site.stop()
        await web.TCPSite(runner, host or None, 0).start()


@asynccontextmanager
async def _runner(app: web.Application) -> AsyncIterator[web.AppRunner]:
    """Set an application up. A handler is cancelled when its client goes away."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_server_logger,
        auto_decompress=False,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    try:
        yield runner
    finally:
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await runner.cleanup()


class _BoundSite(web.BaseSite):
    """A site on a Unix socket that listens already."""

    __slots__ = ("_listener",)

    def __init__(self, runner: web.AppRunner, listener: socket.socket) -> None:
        super().__init__(runner)
        self._listener = listener

    @property
    def name(self) -> str:
        """Name the socket for aiohttp's own messages."""
        return "http://unix"

    async def start(self) -> None:
        """Begin to accept connections."""
        await super().start()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(server, sock=self._listener, backlog=BACKLOG)
