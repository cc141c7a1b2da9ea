from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from snapd.api.access import Caller, Rules, only_who_may
from snapd.api.follows import FollowRoutes, add_follows
from snapd.api.listening import control_socket
from snapd.api.operations import ROLES
from snapd.api.peers import resolve_access
from snapd.api.replies import errors_become_replies
from snapd.api.serving import serve_socket
from snapd.model.access import Peer, Role
from snapd.model.errors import DestinationTaken, FollowNotFound, SnapsyncError
from snapd.model.follow_views import FollowView
from snapd.model.follows import FollowRequest, follow_id_of
from snapd.model.settings import AccessSettings

BODY = {"reference": "iris@production", "dest": "/srv/iris", "store": "s3://ml/store"}


@dataclass
class FakeFollowing:
    """Takes note of what it is asked."""

    asked: list[tuple[FollowRequest, Peer, bool]] = field(default_factory=list)
    removed: list[tuple[str, int | None]] = field(default_factory=list)
    refusal: SnapsyncError | None = None

    def views(self) -> list[FollowView]:
        return [_view(request) for request, _, _ in self.asked]

    async def add(self, request: FollowRequest, asker: Peer, *, may_hook: bool) -> FollowView:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append((request, asker, may_hook))
        return _view(request)

    async def remove(self, follow_id: str, *, by_uid: int | None) -> FollowView:
        if not self.asked:
            raise FollowNotFound("nothing")
        self.removed.append((follow_id, by_uid))
        return _view(self.asked[0][0])


def _view(request: FollowRequest) -> FollowView:
    follow = request.follow
    return FollowView(
        follow_id_of(follow.dest),
        follow.ref,
        follow.store,
        follow.dest,
        f"{follow.dest}/current",
        configured=False,
        state="starting",
        has_hook=bool(follow.hook),
    )


@asynccontextmanager
async def serving(
    tmp_path: Path, access: AccessSettings
) -> AsyncIterator[tuple[FakeFollowing, aiohttp.ClientSession]]:
    following = FakeFollowing()
    rules = Rules(resolve_access(access), ("s3://ml",))
    app = web.Application(middlewares=[errors_become_replies, only_who_may(lambda: rules, ROLES)])
    add_follows(app, following)
    path = tmp_path / "s.sock"
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
        ):
            yield following, client


async def ask(
    client: aiohttp.ClientSession, method: str, path: str, **more: Any
) -> tuple[int, dict[str, Any]]:
    async with client.request(method, f"http://snapd{path}", **more) as response:
        return response.status, await response.json()


async def test_a_follow_is_asked_for_listed_and_ended(tmp_path: Path) -> None:
    async with serving(tmp_path, AccessSettings()) as (following, client):
        hooked = BODY | {"hook": ["/bin/reload", "a secret word"], "wait": True}
        status, document = await ask(client, "POST", "/v1/follows", json=hooked)
        assert status == 201
        view = FollowView.from_json(document)
        [(request, _, may_hook)] = following.asked
        assert request == FollowRequest.from_json(hooked)
        assert may_hook, "who asks runs the daemon"
        status, document = await ask(client, "GET", "/v1/follows")
        assert status == 200
        assert list(map(FollowView.from_json, document["follows"])) == [view]
        assert "secret" not in str(document), "readers see that there is a hook, not which"
        status, document = await ask(client, "DELETE", f"/v1/follows/{view.follow_id}")
        assert (status, following.removed) == (200, [(view.follow_id, None)])


@pytest.mark.parametrize(
    ("access", "post", "delete", "may_hook"),
    [
        (AccessSettings(read=("*",), pull=(), administer=()), 403, 403, None),
        (AccessSettings(pull=("*",), administer=()), 201, 200, False),
        (AccessSettings(administer=("owner",)), 201, 200, True),
    ],
    ids=["reader", "puller", "administrator"],
)
async def test_who_may_do_what(
    tmp_path: Path, access: AccessSettings, post: int, delete: int, may_hook: bool | None
) -> None:
    async with serving(tmp_path, access) as (following, client):
        assert (await ask(client, "GET", "/v1/follows"))[0] == 200
        assert (await ask(client, "POST", "/v1/follows", json=BODY))[0] == post
        if not following.asked:
            following.asked.append((FollowRequest.from_json(BODY), Peer(1, 1, 1), False))
        assert (await ask(client, "DELETE", "/v1/follows/abc"))[0] == delete
        if may_hook is not None:
            assert following.asked[0][2] is may_hook
            [(_, by_uid)] = following.removed
            assert (by_uid is None) is may_hook, "a puller ends only what is their own"


def test_an_administrator_who_is_another_user_sets_no_hook() -> None:
    rules = Rules(resolve_access(AccessSettings()))
    routes = FollowRoutes(FakeFollowing(), daemon_uid=1000)
    for uid, role, may in (
        (1000, Role.ADMINISTER, True),
        (0, Role.ADMINISTER, True),
        (0, Role.PULL, False),  # root in a container, where root is no administrator
        (1001, Role.ADMINISTER, False),
        (1000, Role.PULL, False),
    ):
        assert routes.may_hook(Caller(Peer(1, uid, uid), role, rules)) is may


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ([], 400, "usage"),
        ({}, 400, "usage"),
        (BODY | {"dest": "relative"}, 400, "usage"),
        (BODY | {"reference": "iris"}, 400, "invalid_reference"),
        (BODY | {"store": "file:///etc"}, 403, "store_not_allowed"),
        (BODY | {"more": 1}, 400, "usage"),
    ],
    ids=str,
)
async def test_what_is_no_request_is_refused(
    tmp_path: Path, body: Any, status: int, code: str
) -> None:
    access = AccessSettings(pull=("*",), administer=())
    async with serving(tmp_path, access) as (following, client):
        answered, document = await ask(client, "POST", "/v1/follows", json=body)
        assert (answered, document["code"]) == (status, code)
        assert following.asked == []


async def test_refusals_have_their_status(tmp_path: Path) -> None:
    async with serving(tmp_path, AccessSettings()) as (following, client):
        following.refusal = DestinationTaken("taken")
        status, document = await ask(client, "POST", "/v1/follows", json=BODY)
        assert (status, document["code"]) == (409, "destination_taken")
        status, document = await ask(client, "DELETE", "/v1/follows/abc")
        assert (status, document["code"]) == (404, "no_such_follow")
