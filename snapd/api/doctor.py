"""`GET /v1/doctor`: what only the daemon can find out about its node; read-only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio
from aiohttp import web

from snapd.model.checks import Check


def add_doctor(app: web.Application, diagnose: Callable[[], Awaitable[Sequence[Check]]]) -> None:
    """Add the route; one examination runs at a time, whoever asks meanwhile waits for the next."""
    one = anyio.Lock()

    async def doctor(_request: web.Request) -> web.Response:
        """`GET /v1/doctor`: look at stores, credentials, clock, disk and limits now."""
        async with one:
            checks = await diagnose()
        return web.json_response({"checks": [check.to_json() for check in checks]})

    app.router.add_get("/v1/doctor", doctor, allow_head=False)
