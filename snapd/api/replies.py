"""The one place where an error becomes an HTTP reply."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from snapd.model.errors import (
    DaemonStopping,
    DestinationMissing,
    DestinationTaken,
    FollowNotFound,
    InternalError,
    JobNotFound,
    KeyMissing,
    LeaseNotFound,
    NoSpace,
    NotAllowed,
    QueueFull,
    ReferenceNotFound,
    RegistryUnreadable,
    SnapshotInUse,
    SnapshotNotFound,
    SnapsyncError,
    StoreUnreachable,
    TimedOut,
    UsageError,
)

logger = logging.getLogger(__name__)

STATUSES: tuple[tuple[type[SnapsyncError], int], ...] = (
    (UsageError, 400),
    (NotAllowed, 403),
    (JobNotFound, 404),
    (SnapshotNotFound, 404),
    (KeyMissing, 404),
    (ReferenceNotFound, 404),
    (LeaseNotFound, 404),
    (FollowNotFound, 404),
    (DestinationMissing, 404),
    (DestinationTaken, 409),
    (SnapshotInUse, 409),
    (QueueFull, 429),
    (StoreUnreachable, 502),
    (RegistryUnreadable, 502),
    (DaemonStopping, 503),
    (TimedOut, 504),
    (NoSpace, 507),
)
"""The first class that an error belongs to decides; any other error is a 500."""

_KEPT_HEADERS = ("Allow", "WWW-Authenticate")
"""What HTTP asks for with some of its own refusals."""

RETRY_AFTER_SECONDS = {429: "5", 503: "5"}


def reply_to(error: Exception, request: web.BaseRequest) -> web.Response:
    """Turn any exception of a handler into a JSON reply.

    An exception that is neither ours nor HTTP's own is a defect: it is logged here with its
    traceback, and its text stays in the log.
    """
    if isinstance(error, SnapsyncError):
        status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
        return _reply(error, status)
    if isinstance(error, web.HTTPException):
        kept = {name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers}
        return _reply(_of_http(error, request), error.status, kept)
    logger.error("%s %s met a defect", request.method, request.path, exc_info=error)
    return _reply(InternalError(f"{request.method} {request.path} met a defect in snapd"), 500)


def _of_http(error: web.HTTPException, request: web.BaseRequest) -> SnapsyncError:
    """Say what HTTP refused: no such route, not this method, a body too large, no token."""
    if isinstance(error, web.HTTPUnauthorized):
        return NotAllowed(
            f"{request.path} asks for the daemon's token",
            hint="Send 'Authorization: Bearer TOKEN', or the token as password of any user.",
        )
    return UsageError(
        f"{request.method} {request.path}: {error.reason}",
        hint="docs/daemon.md lists the requests that the daemon understands.",
    )


def _reply(
    error: SnapsyncError, status: int, headers: Mapping[str, str] | None = None
) -> web.Response:
    reply = web.json_response(error.to_json(), status=status, headers=headers)
    if status in RETRY_AFTER_SECONDS:
        reply.headers["Retry-After"] = RETRY_AFTER_SECONDS[status]
    return reply


@web.middleware
async def errors_become_replies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Wrap every handler of an application, the router's own refusals included."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - the one place where all of them end
        return reply_to(error, request)
