"""Routes about space: what a pull would need, sweeps, evictions."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from snapd.api.access import CALLER
from snapd.api.requests import read_document
from snapd.model.access import Role
from snapd.model.errors import UsageError
from snapd.model.ids import SnapshotId, parse_snapshot_id
from snapd.model.jobs import PullRequest
from snapd.model.space import PlanView, SweepReport, SweepRequest


class Space(Protocol):
    """The part of a node that the routes need."""

    async def foretell(self, request: PullRequest) -> PlanView:
        """Tell what a pull would fetch and evict; changes nothing."""
        ...

    async def sweep(self, request: SweepRequest) -> SweepReport:
        """Free what was asked for, or sweep down to the low watermark."""
        ...

    async def evict(self, snapshot_id: SnapshotId, *, given_out_too: bool) -> SweepReport:
        """Evict one snapshot; raises `SnapshotNotFound`, `SnapshotInUse`."""
        ...


def add_space(app: web.Application, space: Space) -> None:
    """Add the routes to the application of the control socket."""

    async def plan(request: web.Request) -> web.Response:
        """`POST /v1/plan`: what a pull would do now."""
        wanted = PullRequest.from_json(await read_document(request))
        request[CALLER].check_store(wanted.store)
        return web.json_response((await space.foretell(wanted)).to_json())

    async def sweep(request: web.Request) -> web.Response:
        """`POST /v1/sweep`: make space, or tell what that would take, which takes no power."""
        wanted = SweepRequest.from_json(await read_document(request))
        if not wanted.dryrun:
            request[CALLER].require(Role.ADMINISTER, "sweep the cache")
        return web.json_response((await space.sweep(wanted)).to_json())

    async def evict(request: web.Request) -> web.Response:
        """`DELETE /v1/snapshots/{id}`: take one snapshot out of the cache."""
        snapshot_id = parse_snapshot_id(request.match_info["id"])
        given_out_too = _switch(request, "given_out_too")
        return web.json_response(
            (await space.evict(snapshot_id, given_out_too=given_out_too)).to_json()
        )

    app.router.add_post("/v1/plan", plan)
    app.router.add_post("/v1/sweep", sweep)
    app.router.add_delete("/v1/snapshots/{id}", evict)


def _switch(request: web.Request, name: str) -> bool:
    """Read `?name=1`; without it the answer is no."""
    value = request.query.get(name, "0")
    if value not in ("0", "1"):
        raise UsageError(f"{name} is 0 or 1, not {value[:80]!r}")
    return value == "1"
