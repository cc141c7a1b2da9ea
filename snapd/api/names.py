"""`POST /v1/resolve`: where a reference leads, for who has no credentials of the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from snapd.api.access import CALLER
from snapd.api.requests import read_document
from snapd.model.errors import UsageError
from snapd.model.references import Reference, Resolved, parse_reference
from snapd.model.uris import parse_store_uri

Resolve = Callable[[Reference, str], Awaitable[Resolved]]
"""Look a reference up in a store; raises `NameNotFound`, `VersionNotFound`, the store's errors."""

_KEYS = ("reference", "store")


def add_names(app: web.Application, resolve: Resolve) -> None:
    """Add the route to the application of the control socket."""

    async def look(request: web.Request) -> web.Response:
        reference, store = _read(await read_document(request))
        request[CALLER].check_store(store)
        return web.json_response((await resolve(reference, store)).to_json())

    app.router.add_post("/v1/resolve", look)


def _read(document: object) -> tuple[Reference, str]:
    """Take both words of a request; raises `UsageError` for anything else."""
    if not isinstance(document, dict) or not all(isinstance(document.get(k), str) for k in _KEYS):
        raise UsageError("the body is a JSON object with 'reference' and 'store', both texts")
    if unknown := sorted(str(key)[:80] for key in document if key not in _KEYS):
        raise UsageError(f"unknown keys: {', '.join(unknown)}")
    return parse_reference(document["reference"]), str(parse_store_uri(document["store"]))
