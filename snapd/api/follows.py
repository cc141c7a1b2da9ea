"""`/v1/follows`: what the node keeps live, and asking for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from snapd.api.access import CALLER, Caller
from snapd.api.requests import read_document
from snapd.model.access import Peer
from snapd.model.follow_views import FollowView
from snapd.model.follows import FollowRequest


class ControlledFollowing(Protocol):
    """The part of the node that the API needs."""

    def views(self) -> Sequence[FollowView]:
        """Show how all follows stand."""
        ...

    async def add(self, request: FollowRequest, asker: Peer, *, may_hook: bool) -> FollowView:
        """Follow for a caller."""
        ...

    async def remove(self, follow_id: str, *, by_uid: int | None) -> FollowView:
        """End a follow, with `by_uid` only if it is that user's own."""
        ...


class FollowRoutes:
    """The handlers; one instance a daemon."""

    def __init__(self, following: ControlledFollowing, daemon_uid: int) -> None:
        self._following = following
        self._daemon_uid = daemon_uid

    async def list(self, _request: web.Request) -> web.Response:
        """`GET /v1/follows`: how everything stands that is followed."""
        return web.json_response({"follows": [each.to_json() for each in self._following.views()]})

    async def add(self, request: web.Request) -> web.Response:
        """`POST /v1/follows`: follow, over restarts.

        A hook runs as the daemon's user. So only who is that user, or root, may set one: to
        administer the cache is less than to run programs as its owner.
        """
        wanted = FollowRequest.from_json(await read_document(request))
        caller = request[CALLER]
        if wanted.follow.store:
            caller.check_store(wanted.follow.store)
        view = await self._following.add(wanted, caller.peer, may_hook=self.may_hook(caller))
        return web.json_response(view.to_json(), status=201)

    async def remove(self, request: web.Request) -> web.Response:
        """`DELETE /v1/follows/{id}`: end one's own, or anybody's for an administrator."""
        caller = request[CALLER]
        by_uid = None if caller.administers else caller.peer.uid
        view = await self._following.remove(request.match_info["id"], by_uid=by_uid)
        return web.json_response(view.to_json())

    def may_hook(self, caller: Caller) -> bool:
        """Tell whether a caller may name a program that runs as the daemon's user."""
        return caller.administers and caller.peer.uid in (0, self._daemon_uid)


def add_follows(
    app: web.Application, following: ControlledFollowing, *, daemon_uid: int | None = None
) -> None:
    """Put the routes of follows into the application that the control socket serves."""
    routes = FollowRoutes(following, os.geteuid() if daemon_uid is None else daemon_uid)
    app.router.add_get("/v1/follows", routes.list, allow_head=False)
    app.router.add_post("/v1/follows", routes.add)
    app.router.add_delete("/v1/follows/{id}", routes.remove)
