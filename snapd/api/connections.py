"""Bounds on connections: how many there may be, and how long one may be of no use.

A `Gate` stands between the socket and the web server's own protocol. It knows what the server does
not: whose connection this is, that the whole number is bounded, and that a client that does not
take its answer holds memory.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import anyio
from aiohttp import web
from aiohttp.typedefs import Handler

from snapd.api.peers import peer_of
from snapd.model.errors import QueueFull

_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener allows."""

    connections_max: int = 4096
    per_client_max: int = 3072
    """Of those, as many may belong to one user (Unix socket) or one address (TCP)."""
    idle_seconds: float = 20.0
    """A connection without a request in progress may last this long: one that says nothing, or its
    request one byte at a time, and one that does not take an answer that is ready."""
    stuck_seconds: float = 30.0
    """A client that takes nothing of a long answer or a stream is cut after this time."""


def fit_to_open_files(bounds: Bounds) -> Bounds:
    """Leave three of four open files to the daemon's own work, whatever clients do."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fit = bounds.connections_max if soft == resource.RLIM_INFINITY else max(16, soft // 4)
    if fit >= bounds.connections_max:
        return bounds
    share = max(1, bounds.per_client_max * fit // bounds.connections_max)
    return Bounds(fit, share, bounds.idle_seconds, bounds.stuck_seconds)


class Gate(asyncio.Protocol):
    """One connection, on its way to the server's protocol."""

    def __init__(self, gates: Gates, inner: asyncio.Protocol) -> None:
        self._gates = gates
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self.client: Hashable = None
        self.requests = 0
        self.doomed = False
        self.idle_since = 0.0
        self.stuck_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or refuse it at once."""
        self._transport = cast(asyncio.Transport, transport)
        self.client = _client_of(self._transport)
        self.idle_since = self._gates.now()
        if self._gates.let_in(self):
            self._inner.connection_made(transport)
        else:
            self._transport.write(_refusal())
            self._transport.close()
            self._gates.leaving(self)

    def data_received(self, data: bytes) -> None:
        """Hand on what the client says."""
        if self in self._gates:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on that the client says no more."""
        return self._inner.eof_received() if self in self._gates else None

    def pause_writing(self) -> None:
        """Take note that the client does not take what it is told."""
        self.stuck_since = self._gates.now()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Take note that it does again."""
        self.stuck_since = None
        self.idle_since = self._gates.now()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on that the connection is gone."""
        if self._gates.forget(self):
            self._inner.connection_lost(exc)

    def request_began(self) -> None:
        """Take note that the connection is of use."""
        self.requests += 1

    def request_ended(self) -> None:
        """Take note that nothing is to be done but to have the answer taken."""
        self.requests -= 1
        self.idle_since = self._gates.now()

    def cut(self) -> None:
        """End the connection without waiting for the client to take what is left."""
        self.doomed = True
        if self._transport is not None:
            self._transport.abort()


class Gates:
    """All connections of one listener."""

    def __init__(self, bounds: Bounds, now: Callable[[], float]) -> None:
        self._bounds = bounds
        self.now = now
        self._open: dict[Gate, None] = {}
        self._leaving: dict[Gate, float] = {}
        self._per_client: dict[Hashable, int] = {}

    def __contains__(self, gate: Gate) -> bool:
        return gate in self._open

    def __len__(self) -> int:
        return len(self._open)

    def let_in(self, gate: Gate) -> bool:
        """Make room for a connection if need be, at the cost of the one that idles longest."""
        if self._per_client.get(gate.client, 0) >= self._bounds.per_client_max:
            if not self._cut_idlest([each for each in self._open if each.client == gate.client]):
                return False
        elif len(self._open) >= self._bounds.connections_max and not self._cut_idlest(
            list(self._open)
        ):
            return False
        self._open[gate] = None
        self._per_client[gate.client] = self._per_client.get(gate.client, 0) + 1
        return True

    def leaving(self, gate: Gate) -> None:
        """Keep an eye on a refused connection until its refusal is taken."""
        self._leaving[gate] = self.now()

    def forget(self, gate: Gate) -> bool:
        """Take a connection off the books; tells whether it had been let in."""
        self._leaving.pop(gate, None)
        if gate not in self._open:
            return False
        del self._open[gate]
        left = self._per_client[gate.client] - 1
        if left:
            self._per_client[gate.client] = left
        else:
            del self._per_client[gate.client]
        return True

    async def keep_cutting(self) -> None:
        """Cut what has been of no use for too long, for ever."""
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            self.cut_useless()

    def cut_useless(self) -> None:
        """Cut the connections that idle or are stuck beyond the bounds."""
        now, bounds = self.now(), self._bounds
        for gate in list(self._open):
            stuck = gate.stuck_since is not None and now - gate.stuck_since > bounds.stuck_seconds
            idle = not gate.requests and now - gate.idle_since > bounds.idle_seconds
            if stuck or idle:
                gate.cut()
        for gate, since in list(self._leaving.items()):
            if now - since > bounds.idle_seconds:
                gate.cut()

    def _cut_idlest(self, candidates: list[Gate]) -> bool:
        """Cut one that has no request; its place is taken at once, its end comes a moment later."""
        idle = [gate for gate in candidates if not gate.requests and not gate.doomed]
        if not idle:
            return False
        min(idle, key=lambda gate: gate.idle_since).cut()
        return True


def _refusal() -> bytes:
    error = QueueFull(
        "there are too many connections to snapd", hint="Close some, or try again in a few seconds."
    )
    body = json.dumps(error.to_json()).encode()
    head = (
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Retry-After: 5\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _client_of(transport: asyncio.Transport) -> Hashable:
    """Tell whose connection this is: a user on a Unix socket, an address on TCP."""
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple):
        return str(address[0])
    with suppress(OSError):
        return peer_of(transport.get_extra_info("socket")).uid
    return None


@web.middleware
async def requests_hold_the_gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Mark the connection as of use for as long as its request is handled."""
    transport = request.transport
    gate = None if transport is None else transport.get_protocol()
    if not isinstance(gate, Gate):
        return await handler(request)
    gate.request_began()
    try:
        return await handler(request)
    finally:
        gate.request_ended()
