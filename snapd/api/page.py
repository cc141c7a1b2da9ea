"""The page that a browser shows of a node: three files of our own, nothing from anywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from aiohttp import web

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing is loaded but our own files, nothing in the document runs, nobody may frame it."""

_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
)
_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "page.html": "text/html",
        "page.css": "text/css",
        "page.js": "text/javascript",
        "icon.svg": "image/svg+xml",
    }
)


def add_page(app: web.Application) -> None:
    """Let an application serve the page at `/` and its parts below `/assets/`."""
    parts = {name: _read(name) for name in _TYPES}

    def part(name: str, request: web.Request) -> web.Response:
        body, tag = parts[name]
        headers = {**_HEADERS, "ETag": tag}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=_TYPES[name], charset="utf-8", headers=headers)

    async def page(request: web.Request) -> web.Response:
        """`GET /`: the page."""
        return part("page.html", request)

    async def asset(request: web.Request) -> web.Response:
        """`GET /assets/{name}`: one of its parts."""
        name = request.match_info["name"]
        if name not in parts:
            raise web.HTTPNotFound
        return part(name, request)

    app.router.add_get("/", page, allow_head=False)
    app.router.add_get("/assets/{name}", asset, allow_head=False)


def _read(name: str) -> tuple[bytes, str]:
    body = files("snapd.api").joinpath("assets", name).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'
