"""A job's views as a stream of lines, for whoever reads fast or slow or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic

import anyio
from aiohttp import web

from snapd.model.jobs import JobView

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a stream speaks and how long it waits for a reader."""

    interval_seconds: float = 0.5
    """Views come at most this often."""
    heartbeat_seconds: float = 4.0
    """An unchanged view is repeated after this time, so that a client can tell life."""
    patience_seconds: float = 30.0
    """A reader that takes nothing for this long is dropped."""


async def stream_views(
    request: web.Request, views: AsyncIterator[JobView], pace: Pace
) -> web.StreamResponse:
    """Send one JSON line a view until `views` ends; the last view is always sent.

    The views are pulled, never pushed: a slow reader misses views in between, and nothing is kept
    for it but what fits into the connection's own buffer. When the reader is gone or stuck the
    connection is cut, so that it can't take a broken stream for a whole one, and this returns.
    """
    response = web.StreamResponse(
        headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
    )
    try:
        await response.prepare(request)
        await _send_all(response, views, pace)
        await response.write_eof()
    except TimeoutError:
        logger.info("dropped a client that did not read its events for %ss", pace.patience_seconds)
        _cut(request)
    except ConnectionError:
        _cut(request)
    except Exception:
        logger.exception("%s %s met a defect in its stream", request.method, request.path)
        _cut(request)
    return response


async def _send_all(
    response: web.StreamResponse, views: AsyncIterator[JobView], pace: Pace
) -> None:
    sent: JobView | None = None
    sent_at = 0.0
    async for view in views:
        if view == sent and not view.ended and monotonic() - sent_at < pace.heartbeat_seconds:
            continue
        with anyio.fail_after(pace.patience_seconds):
            await response.write(json.dumps(view.to_json()).encode() + b"\n")
        sent, sent_at = view, monotonic()


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
