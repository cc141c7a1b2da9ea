"""A control API over a real Unix socket, in front of pulls that do as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from snapd.api.access import Rules, only_who_may
from snapd.api.control import control_app
from snapd.api.events import Pace
from snapd.api.listening import control_socket
from snapd.api.operations import ROLES
from snapd.api.peers import resolve_access
from snapd.api.replies import errors_become_replies
from snapd.api.serving import serve_socket
from snapd.model.errors import JobCancelled, JobNotFound, SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.jobs import JobView, PullRequest, SnapshotView
from snapd.model.settings import AccessSettings

ID = SnapshotId("ab" * 32)
BODY = {"id": ID, "store": "s3://bucket/prefix"}


@dataclass(eq=False)
class FakeJob:
    """A job that the test moves on."""

    now: JobView
    error: SnapsyncError | None = None
    waiters: int = 0
    joined: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)
    _changed: anyio.Event = field(default_factory=anyio.Event)

    def view(self) -> JobView:
        return self.now

    def become(self, **changes: Any) -> None:
        self.now = self.now.with_changes(**changes)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def end(self, error: SnapsyncError | None = None) -> None:
        self.error = error
        if error is None:
            self.become(state="done", tree="/cache/trees/x")
        else:
            state = "cancelled" if isinstance(error, JobCancelled) else "failed"
            self.become(state=state, error=error.to_json())

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[None]:
        self.waiters += 1
        self.joined.set()
        try:
            yield
        finally:
            self.waiters -= 1
            self.left.set()

    async def changes(self, interval_seconds: float) -> AsyncIterator[JobView]:
        while not self.now.ended:
            yield self.now
            with anyio.move_on_after(interval_seconds):
                await self._changed.wait()
        yield self.now

    async def wait(self) -> JobView:
        while not self.now.ended:
            await self._changed.wait()
        if self.error is not None:
            raise self.error
        return self.now


@dataclass(eq=False)
class FakePulls:
    """Keeps the jobs that were asked for; `refusal` is raised instead of starting one."""

    started: dict[str, FakeJob] = field(default_factory=dict)
    requests: list[tuple[PullRequest, bool]] = field(default_factory=list)
    refusal: Exception | None = None

    async def start(self, request: PullRequest, *, detached: bool = False) -> FakeJob:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append((request, detached))
        return self.add(f"j{len(self.started) + 1}", request.store)

    def add(self, job_id: str, store: str = "s3://b") -> FakeJob:
        job = FakeJob(JobView(job_id, ID, store, "fetching"))
        self.started[job_id] = job
        return job

    def get(self, job_id: str) -> FakeJob:
        if job_id not in self.started:
            raise JobNotFound(f"no job {job_id!r}")
        return self.started[job_id]

    def jobs(self) -> list[JobView]:
        return [job.view() for job in self.started.values()]

    def cancel(self, job_id: str) -> FakeJob:
        job = self.get(job_id)
        if not job.now.ended:
            job.end(JobCancelled("cancelled"))
        return job


@dataclass
class Api:
    """A running API and a client of it."""

    pulls: FakePulls
    socket: Path
    client: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        """Send one request; its status and its JSON."""
        async with self.client.request(method, f"http://snapd{path}", **arguments) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()


async def snapshots() -> list[SnapshotView]:
    return [SnapshotView(ID, "s3://b", "/trees/x", 2, 2, 10, 1.0, 2.0)]


async def status() -> dict[str, Any]:
    return {"version": "1", "pid": 7}


USUAL = Rules(resolve_access(AccessSettings()))


def checked_app() -> web.Application:
    """Make an application that knows its callers, without any route."""
    return web.Application(middlewares=[errors_become_replies, only_who_may(lambda: USUAL, ROLES)])


FAST = Pace(interval_seconds=0.01, heartbeat_seconds=0.2, patience_seconds=0.25)


@asynccontextmanager
async def serving_api(
    path: Path, *, pace: Pace = FAST, streams_max: int = 1000, rules: Rules = USUAL
) -> AsyncIterator[Api]:
    pulls = FakePulls()
    app = control_app(
        pulls,
        snapshots=snapshots,
        status=status,
        pace=pace,
        streams_max=streams_max,
        rules=lambda: rules,
    )
    connector = aiohttp.UnixConnector(str(path), limit=0)
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=connector) as client,
        ):
            yield Api(pulls, path, client)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving_api(tmp_path / "s.sock") as running:
        yield running
