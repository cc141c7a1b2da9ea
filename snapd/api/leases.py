"""`/v1/leases`: who holds which snapshot, and holding one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from snapd.api.access import CALLER
from snapd.api.requests import read_document
from snapd.model.errors import UsageError
from snapd.model.leases import Lease, LeaseRequest


class ControlledLeases(Protocol):
    """The part of the node that the API needs."""

    async def leases(self) -> Sequence[Lease]:
        """List what is held now, time leases included."""
        ...

    async def add_lease(self, request: LeaseRequest, *, pid: int, uid: int) -> Lease:
        """Hold a snapshot for a client."""
        ...

    async def remove_lease(self, lease_id: str, *, by_uid: int | None) -> Lease:
        """End a lease, with `by_uid` only if it is that user's own."""
        ...


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
        peer = request[CALLER].peer
        if wanted.kind == "process" and peer.pid == 0:
            raise UsageError(
                "the daemon can't see the process that asks: it is in another PID namespace",
                hint="Give the daemon the host's PID namespace, or name the pod (--pod).",
            )
        lease = await self._holders.add_lease(wanted, pid=peer.pid, uid=peer.uid)
        return web.json_response(lease.to_json(), status=201)

    async def remove(self, request: web.Request) -> web.Response:
        """`DELETE /v1/leases/{id}`: end a lease before its time.

        One's own, or anybody's for an administrator.
        """
        caller = request[CALLER]
        by_uid = None if caller.administers else caller.peer.uid
        lease = await self._holders.remove_lease(request.match_info["id"], by_uid=by_uid)
        return web.json_response(lease.to_json())


def add_leases(app: web.Application, holders: ControlledLeases) -> None:
    """Put the routes of leases into the application that the control socket serves."""
    routes = LeaseRoutes(holders)
    app.router.add_get("/v1/leases", routes.list, allow_head=False)
    app.router.add_post("/v1/leases", routes.add)
    app.router.add_delete("/v1/leases/{id}", routes.remove)
