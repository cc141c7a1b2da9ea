"""`/v1/leases`: who holds which snapshot, and holding one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aiohttp import web

from snapd.api.requests import read_document
from snapd.model.errors import UsageError
from snapd.model.leases import Lease, LeaseRequest

_PEER = struct.Struct("3i")


class ControlledLeases(Protocol):
    """The part of the node that the API needs."""

    async def leases(self) -> Sequence[Lease]:
        """List what is held now, time leases included."""
        ...

    async def add_lease(self, request: LeaseRequest, *, pid: int, uid: int) -> Lease:
        """Hold a snapshot for a client."""
        ...

    async def remove_lease(self, lease_id: str) -> Lease:
        """End a lease; raises `LeaseNotFound`."""
        ...


class Peer(NamedTuple):
    """Who is at the other end, as the kernel knows it, in this process's own namespaces."""

    pid: int
    uid: int
    gid: int


class LeaseRoutes:
    """The handlers; one instance a daemon."""

    def __init__(self, holders: ControlledLeases) -> None:
        self._holders = holders

    async def list(self, _request: web.Request) -> web.Response:
        """`GET /v1/leases`: everything that holds a snapshot now."""
        leases = await self._holders.leases()
        return web.json_response({"leases": [lease.to_json() for lease in leases]})

    async def add(self, request: web.Request) -> web.Response:
        """`POST /v1/leases`: hold a snapshot.

        A process is not named but is the client at the other end of the connection: it can neither
        be mistaken in its own number, as in a container, nor hold in somebody else's name.
        """
        wanted = LeaseRequest.from_json(await read_document(request))
        peer = peer_of(request)
        if wanted.kind == "process" and peer.pid == 0:
            raise UsageError(
                "the daemon can't see the process that asks: it is in another PID namespace",
                hint="Give the daemon the host's PID namespace, or name the pod (--pod).",
            )
        lease = await self._holders.add_lease(wanted, pid=peer.pid, uid=peer.uid)
        return web.json_response(lease.to_json(), status=201)

    async def remove(self, request: web.Request) -> web.Response:
        """`DELETE /v1/leases/{id}`: end a lease before its time."""
        lease = await self._holders.remove_lease(request.match_info["id"])
        return web.json_response(lease.to_json())


def add_leases(app: web.Application, holders: ControlledLeases) -> None:
    """Put the routes of leases into the application that the control socket serves."""
    routes = LeaseRoutes(holders)
    app.router.add_get("/v1/leases", routes.list, allow_head=False)
    app.router.add_post("/v1/leases", routes.add)
    app.router.add_delete("/v1/leases/{id}", routes.remove)


def peer_of(request: web.Request) -> Peer:
    """Tell who connected to the Unix socket."""
    connected = request.get_extra_info("socket")
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return Peer(*_PEER.unpack(raw))
