"""The control API: what `snapctl` asks of the daemon over its Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, Protocol

import anyio
from aiohttp import web

from snapd.api.access import CALLER, Rules, only_who_may
from snapd.api.askers import Askers
from snapd.api.events import Pace, stream_views
from snapd.api.operations import ROLES
from snapd.api.peers import resolve_access
from snapd.api.replies import errors_become_replies
from snapd.api.requests import BODY_MAX_BYTES, read_document
from snapd.model.access import Role
from snapd.model.errors import QueueFull, SnapsyncError, UsageError
from snapd.model.jobs import JobView, PullRequest, SnapshotView
from snapd.model.settings import AccessSettings

CANCEL_SECONDS = 5.0
"""A cancel is answered when the job has ended, or after this time with the job as it stands."""
STREAMS_MAX = 1024
"""Clients that may follow jobs at the same time; each costs a connection and a task."""


class ControlledJob(Protocol):
    """The part of the engine's `Job` that the API needs."""

    def view(self) -> JobView:
        """Show the job as it stands now."""
        ...

    def attached(self) -> AbstractAsyncContextManager[object]:
        """Wait for the job as long as the block lasts; it ends with its last waiter."""
        ...

    def changes(self, interval_seconds: float) -> AsyncIterator[JobView]:
        """Show the job at once, then at every interval, and when it has ended."""
        ...

    async def wait(self) -> JobView:
        """Return the final view; raises the error that ended the job."""
        ...


class ControlledPulls(Protocol):
    """The part of the engine's `Pulls` that the API needs."""

    async def start(self, request: PullRequest, *, detached: bool = False) -> ControlledJob:
        """Attach to the running pull of the same ID and store, or begin one."""
        ...

    def get(self, job_id: str) -> ControlledJob:
        """Find a job; raises `JobNotFound`."""
        ...

    def jobs(self) -> list[JobView]:
        """List all jobs that are known."""
        ...

    def cancel(self, job_id: str) -> ControlledJob:
        """End a job for everybody who waits for it; raises `JobNotFound`."""
        ...


class Control:
    """The handlers; one instance a daemon."""

    def __init__(
        self,
        pulls: ControlledPulls,
        *,
        snapshots: Callable[[], Awaitable[Sequence[SnapshotView]]],
        status: Callable[[], Awaitable[dict[str, Any]]],
        pace: Pace,
        streams_max: int,
    ) -> None:
        self._pulls = pulls
        self._snapshots = snapshots
        self._status = status
        self._pace = pace
        self._askers = Askers()
        self._streams = 0
        self._streams_max = streams_max

    async def status(self, request: web.Request) -> web.Response:
        """`GET /v1/status`: how the daemon and its cache are, and what the caller may do."""
        return web.json_response(await self._status() | {"role": request[CALLER].role.word})

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/pulls`: start or join a pull.

        Without `detach` the connection is the waiter: it is told how the job stands until that has
        ended, and when the connection closes it leaves the job. With it the answer is one view.
        """
        document = await read_document(request)
        wanted = PullRequest.from_json(document)
        caller = request[CALLER]
        caller.check_store(wanted.store)
        if _detached(document):
            job = await self._pulls.start(wanted, detached=True)
            view = job.view()
            known = {each.job_id for each in self._pulls.jobs()}
            self._askers.detached(view.job_id, caller.peer.uid, known=known)
            return web.json_response(view.to_json(), status=202)
        with self._one_more_stream():
            job = await self._pulls.start(wanted)
            with self._askers.waiting(job.view().job_id, caller.peer.uid):
                async with job.attached():
                    return await self._follow(request, job)

    async def jobs(self, _request: web.Request) -> web.Response:
        """`GET /v1/jobs`: running, waiting and remembered jobs."""
        return web.json_response({"jobs": [view.to_json() for view in self._pulls.jobs()]})

    async def job(self, request: web.Request) -> web.Response:
        """`GET /v1/jobs/{id}`: one job as it stands."""
        return web.json_response(self._pulls.get(request.match_info["id"]).view().to_json())

    async def events(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/jobs/{id}/events`: follow a job; this keeps nothing alive."""
        job = self._pulls.get(request.match_info["id"])
        with self._one_more_stream():
            return await self._follow(request, job)

    async def cancel(self, request: web.Request) -> web.Response:
        """`DELETE /v1/jobs/{id}`: end a job for everybody who waits for it.

        A job that somebody else asked for, too, takes an administrator.
        """
        job_id = request.match_info["id"]
        caller = request[CALLER]
        if not self._pulls.get(job_id).view().ended and self._askers.of(job_id) != {
            caller.peer.uid
        }:
            caller.require(Role.ADMINISTER, f"cancel the job {job_id}, which others asked for")
        job = self._pulls.cancel(job_id)
        with anyio.move_on_after(CANCEL_SECONDS), suppress(SnapsyncError):
            await job.wait()
        return web.json_response(job.view().to_json())

    async def snapshots(self, _request: web.Request) -> web.Response:
        """`GET /v1/snapshots`: the complete snapshots of the cache."""
        views = await self._snapshots()
        return web.json_response({"snapshots": [view.to_json() for view in views]})

    async def _follow(self, request: web.Request, job: ControlledJob) -> web.StreamResponse:
        return await stream_views(request, job.changes(self._pace.interval_seconds), self._pace)

    @contextmanager
    def _one_more_stream(self) -> Iterator[None]:
        if self._streams >= self._streams_max:
            raise QueueFull(
                f"{self._streams} clients follow jobs already",
                hint="Use `snapctl pull --detach`, or ask `snapctl jobs` now and then.",
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


def control_app(
    pulls: ControlledPulls,
    *,
    snapshots: Callable[[], Awaitable[Sequence[SnapshotView]]],
    status: Callable[[], Awaitable[dict[str, Any]]],
    pace: Pace | None = None,
    streams_max: int = STREAMS_MAX,
    rules: Callable[[], Rules] | None = None,
) -> web.Application:
    """Make the application that the control socket serves.

    Without `rules` they are those of a configuration that says nothing.
    """
    usual = Rules(resolve_access(AccessSettings()))
    control = Control(
        pulls, snapshots=snapshots, status=status, pace=pace or Pace(), streams_max=streams_max
    )
    checks = only_who_may(rules or (lambda: usual), ROLES)
    app = web.Application(
        middlewares=[errors_become_replies, checks], client_max_size=BODY_MAX_BYTES
    )
    app.router.add_get("/v1/status", control.status, allow_head=False)
    app.router.add_post("/v1/pulls", control.pull)
    app.router.add_get("/v1/jobs", control.jobs, allow_head=False)
    app.router.add_get("/v1/jobs/{id}", control.job, allow_head=False)
    app.router.add_delete("/v1/jobs/{id}", control.cancel)
    app.router.add_get("/v1/jobs/{id}/events", control.events, allow_head=False)
    app.router.add_get("/v1/snapshots", control.snapshots, allow_head=False)
    return app


def _detached(document: object) -> bool:
    detached = document.get("detach", False) if isinstance(document, dict) else False
    if not isinstance(detached, bool):
        raise UsageError(f"'detach' is true or false, not {detached!r}")
    return detached
