"""Health and metrics over TCP, for Kubernetes and Prometheus; whoever calls only reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from anyio import to_thread

from snapd.api.operations import FREE_PATHS
from snapd.api.replies import errors_become_replies
from snapd.api.tokens import Token, only_who_has
from snapd.runtime.metrics import Metrics
from snapd.runtime.numbers import NodeNumbers


def health_app(
    metrics: Metrics,
    *,
    unready_because: Callable[[], str],
    numbers: Callable[[], Awaitable[NodeNumbers]],
    token: Callable[[], Token | None] = lambda: None,
) -> web.Application:
    """Make the application that serves `/livez`, `/readyz` and `/metrics`.

    `unready_because` says why no pull would be accepted now, or nothing if one would. As long as
    there is a `token`, everything but health asks for it.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        reason = unready_because()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def scrape(request: web.Request) -> web.Response:
        metrics.set_ready(not unready_because())
        metrics.set_numbers(await numbers())
        accept = request.headers.get("Accept", "")
        body, content_type = await to_thread.run_sync(metrics.render, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    checks = only_who_has(token, free=FREE_PATHS)
    app = web.Application(middlewares=[errors_become_replies, checks])
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    return app
