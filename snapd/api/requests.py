"""Bodies of requests, read within bounds."""

from __future__ import annotations

import json

import anyio
from aiohttp import web

from snapd.model.errors import TimedOut, UsageError

BODY_MAX_BYTES = 64 * 1024
BODY_SECONDS = 10.0


async def read_document(request: web.Request) -> object:
    """Read a JSON body that is small and arrives in time."""
    announced_bytes = request.content_length or 0
    if announced_bytes > BODY_MAX_BYTES:
        raise web.HTTPRequestEntityTooLarge(BODY_MAX_BYTES, announced_bytes)
    try:
        with anyio.fail_after(BODY_SECONDS):
            raw = await request.read()
    except web.RequestPayloadError as broken:
        raise UsageError(f"the body can't be read: {broken}") from broken
    except TimeoutError as late:
        raise TimedOut(f"the request's body did not arrive within {BODY_SECONDS:.0f} s") from late
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as unreadable:
        raise UsageError(f"the body is not JSON: {unreadable}") from unreadable
