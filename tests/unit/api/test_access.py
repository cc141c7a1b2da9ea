from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from snapd.api import access
from snapd.api.access import Rules
from snapd.api.operations import OPERATIONS
from snapd.model.access import Access, Grant, Peer, Role
from tests.unit.api.conftest import BODY, Api, serving_api

READER, PULLER, OTHER, CHIEF, STRANGER = 1001, 1002, 1003, 1004, 1005
RULES = Rules(
    Access(
        read=Grant(uids=frozenset({READER})),
        pull=Grant(uids=frozenset({PULLER, OTHER})),
        administer=Grant(uids=frozenset({CHIEF})),
    ),
    stores=("*",),
)
Become = Callable[[int], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Let the kernel name another user for every request from now on."""
    return lambda uid: monkeypatch.setattr(access, "peer_of", lambda _: Peer(1, uid, uid))


SOME: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/pulls"): {"json": BODY | {"detach": True}},
}


async def codes_of(api: Api) -> dict[tuple[str, str], str]:
    """Ask for every operation that the application has; what each was answered with."""
    codes = {}
    for each in OPERATIONS:
        if "socket" not in each.served or not each.path.startswith(("/v1/jobs", "/v1/pulls")):
            continue
        path = each.path.replace("{id}", "nothing")
        asked = SOME.get((each.method, each.path), {})
        status, answer = await api.ask(each.method, path, **asked)
        codes[(each.method, each.path)] = answer.get("code", str(status))
    return codes


async def test_each_role_may_do_what_its_operations_say(tmp_path: Path, become: Become) -> None:
    async with serving_api(tmp_path / "s", rules=RULES) as api:
        roles = {STRANGER: Role.NOBODY, READER: Role.READ, PULLER: Role.PULL, CHIEF: 3}
        for uid, role in roles.items():
            become(uid)
            for (method, path), code in (await codes_of(api)).items():
                needed = next(x.role for x in OPERATIONS if (x.method, x.path) == (method, path))
                assert (code == "role_missing") == (role < needed), (uid, method, path, code)


async def test_a_stranger_does_not_even_learn_which_routes_there_are(
    tmp_path: Path, become: Become
) -> None:
    async with serving_api(tmp_path / "s", rules=RULES) as api:
        become(STRANGER)
        status, error = await api.ask("GET", "/v1/nothing")
        assert (status, error["code"]) == (403, "role_missing")
        assert error["details"] == {"has": "nobody", "needs": "read"}
        become(READER)
        assert (await api.ask("GET", "/v1/nothing"))[0] == 404


async def test_status_tells_the_caller_what_they_may_do(tmp_path: Path, become: Become) -> None:
    async with serving_api(tmp_path / "s", rules=RULES) as api:
        become(PULLER)
        assert (await api.ask("GET", "/v1/status"))[1]["role"] == "pull"


async def test_a_pull_is_cancelled_by_whoever_alone_asked_for_it(
    tmp_path: Path, become: Become
) -> None:
    async with serving_api(tmp_path / "s", rules=RULES) as api:
        become(PULLER)
        _, mine = await api.ask("POST", "/v1/pulls", json=BODY | {"detach": True})
        job = f"/v1/jobs/{mine['job_id']}"
        become(OTHER)
        status, error = await api.ask("DELETE", job)
        assert (status, error["code"]) == (403, "role_missing")
        assert not api.pulls.get(mine["job_id"]).now.ended
        become(PULLER)
        assert (await api.ask("DELETE", job))[1]["state"] == "cancelled"
        become(OTHER)
        assert (await api.ask("DELETE", job))[0] == 200, "an ended one is only shown"


async def test_a_pull_that_others_wait_for_takes_an_administrator(
    tmp_path: Path, become: Become
) -> None:
    async with serving_api(tmp_path / "s", rules=RULES) as api:
        become(OTHER)
        async with api.client.post("http://snapd/v1/pulls", json=BODY) as waiting:
            await waiting.content.readline()
            become(PULLER)
            status, _ = await api.ask("DELETE", "/v1/jobs/j1")
            assert status == 403
            become(CHIEF)
            assert (await api.ask("DELETE", "/v1/jobs/j1"))[1]["state"] == "cancelled"


async def test_who_has_left_does_not_count(tmp_path: Path, become: Become) -> None:
    async with serving_api(tmp_path / "s", rules=RULES) as api:
        become(PULLER)
        async with api.client.post("http://snapd/v1/pulls", json=BODY) as waiting:
            await waiting.content.readline()
        with anyio.fail_after(60):
            await api.pulls.get("j1").left.wait()
        status, _ = await api.ask("DELETE", "/v1/jobs/j1")
        assert status == 403, "nobody asks for it any more, so it is nobody's own"


@pytest.mark.parametrize("uid", [PULLER, CHIEF])
async def test_any_bucket_is_no_directory(tmp_path: Path, become: Become, uid: int) -> None:
    async with serving_api(tmp_path / "s", rules=RULES) as api:
        become(uid)
        body = BODY | {"store": "file:///root/secrets", "detach": True}
        status, answer = await api.ask("POST", "/v1/pulls", json=body)
        if uid == CHIEF:
            assert status == 202
        else:
            assert (status, answer["code"]) == (403, "store_not_allowed")
            assert api.pulls.requests == []


async def test_a_directory_that_is_named_is_for_all(tmp_path: Path, become: Become) -> None:
    rules = Rules(RULES.access, stores=("file:///data",))
    async with serving_api(tmp_path / "s", rules=rules) as api:
        become(PULLER)
        for store, expected in [("file:///data/x", 202), ("file:///database", 403)]:
            body = BODY | {"store": store, "detach": True}
            assert (await api.ask("POST", "/v1/pulls", json=body))[0] == expected
