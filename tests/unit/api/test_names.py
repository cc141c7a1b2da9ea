from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from snapd.api.access import Rules, only_who_may
from snapd.api.listening import control_socket
from snapd.api.names import add_names
from snapd.api.operations import ROLES
from snapd.api.peers import resolve_access
from snapd.api.replies import errors_become_replies
from snapd.api.serving import serve_socket
from snapd.model.errors import NameNotFound, RegistryDamaged
from snapd.model.ids import SnapshotId
from snapd.model.references import Reference, Resolved
from snapd.model.settings import AccessSettings

ID = SnapshotId("5c" * 32)
STORE = "s3://models/prod"


async def resolve(reference: Reference, store: str) -> Resolved:
    if reference.name == "absent":
        raise NameNotFound(f"{store} has no 'absent'", nearest=["iris"])
    if reference.name == "damaged":
        raise RegistryDamaged("it is not JSON")
    return Resolved(str(reference), "model", reference.name, "v1.0.0", ID, "production", "old")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    rules = Rules(resolve_access(AccessSettings()), (STORE,))
    app = web.Application(middlewares=[errors_become_replies, only_who_may(lambda: rules, ROLES)])
    add_names(app, resolve)
    path = tmp_path / "s.sock"
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        ):
            yield session


async def ask(client: aiohttp.ClientSession, body: Any) -> tuple[int, dict[str, Any]]:
    async with client.post("http://snapd/v1/resolve", json=body) as response:
        return response.status, await response.json()


async def test_a_reference_is_answered_with_all_that_is_known(
    client: aiohttp.ClientSession,
) -> None:
    body = {"reference": "iris@production", "store": f"{STORE}/"}
    status, document = await ask(client, body)
    assert status == 200
    resolved = Resolved.from_json(document | {"of a newer daemon": 1})
    assert resolved == await resolve(Reference("iris", "production"), STORE)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ([], 400, "usage"),
        ({}, 400, "usage"),
        ({"reference": "iris@production"}, 400, "usage"),
        ({"reference": 1, "store": STORE}, 400, "usage"),
        ({"reference": "iris@production", "store": STORE, "more": 1}, 400, "usage"),
        ({"reference": ID, "store": STORE}, 400, "invalid_reference"),
        ({"reference": "../x@v1.0.0", "store": STORE}, 400, "invalid_name"),
        ({"reference": "x" * 10_000 + "@a", "store": STORE}, 400, "invalid_reference"),
        ({"reference": "iris@production", "store": "nonsense"}, 400, "invalid_store_uri"),
        ({"reference": "absent@production", "store": STORE}, 404, "no_such_name"),
        ({"reference": "damaged@production", "store": STORE}, 502, "registry_damaged"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_can_not_be_resolved_is_said_so(
    client: aiohttp.ClientSession, body: Any, status: int, code: str
) -> None:
    answered, document = await ask(client, body)
    assert (answered, document["code"]) == (status, code)
