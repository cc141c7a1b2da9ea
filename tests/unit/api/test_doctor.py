from __future__ import annotations

from pathlib import Path

import aiohttp
from aiohttp import web

from snapd.api.doctor import add_doctor
from snapd.api.listening import control_socket
from snapd.api.serving import serve_socket
from snapd.model.checks import Check, ok, warning


async def test_the_checks_are_a_document(tmp_path: Path) -> None:
    found = [ok("disk", "fine", free_bytes=7), warning("stores", "none", "allow one")]

    async def diagnose() -> list[Check]:
        return found

    app = web.Application()
    add_doctor(app, diagnose)
    path = tmp_path / "s.sock"
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.get("http://snapd/v1/doctor") as response,
        ):
            document = await response.json()
    assert [Check.from_json(check) for check in document["checks"]] == found
