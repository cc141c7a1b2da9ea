"""What an observer hears of pulls, and what is counted of those at work."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from snapd.actions.jobs import STEPS_MAX, RetriesOfJobs
from snapd.actions.pulls import Pulls, open_pulls
from snapd.disk.cache import open_cache
from snapd.model.errors import CacheFull, DaemonStopping, QueueFull, StoreNotAllowed, Throttled
from snapd.model.ids import digest_of
from snapd.model.jobs import JobView, PullRequest, Step
from snapd.model.layout import object_key
from snapd.model.settings import CacheSettings, DaemonSettings, Settings, TransferSettings
from snapd.remote.memory import Fault, MemoryStore, Stall
from snapd.remote.retrying import Retrying
from snapd.remote.stores import open_stores
from snapd.runtime.log import current_job_id
from snapd.runtime.observer import ObjectSource, Observer, Observers
from snapd.runtime.retry import Backoff
from tests.samples import sample

STORE = "memory://store"
SETTINGS = Settings(daemon=DaemonSettings(stores=(STORE,), pulls_running_max=1))
LITTLE = sample({f"f{number}": f"content {number}".encode() for number in range(9)})
OTHER = sample({"g": b"other"})
THIRD = sample({"h": b"third"})
AT_ONCE = Backoff(0.0, 0.0, attempts_max=3, deadline_seconds=60.0)


class Ear(Observer):
    """Keeps what it hears of pulls."""

    def __init__(self) -> None:
        self.ended: list[tuple[JobView, Sequence[Step]]] = []
        self.refused: list[str] = []
        self.objects: list[tuple[ObjectSource, int]] = []
        self.retries_of: list[str] = []

    def on_retry(self, operation: str, reason: str) -> None:
        self.retries_of.append(current_job_id())

    def on_pull_ended(self, view: JobView, steps: Sequence[Step]) -> None:
        self.ended.append((view, steps))

    def on_objects(self, source: ObjectSource, objects: int, size_bytes: int) -> None:
        self.objects.append((source, objects))

    def objects_from(self, source: ObjectSource) -> int:
        return sum(objects for named, objects in self.objects if named == source)

    def on_pull_refused(self, reason: str) -> None:
        self.refused.append(reason)


@asynccontextmanager
async def opened(
    directory: Path, ear: Ear, settings: Settings = SETTINGS
) -> AsyncIterator[tuple[Pulls, MemoryStore]]:
    store = MemoryStore(STORE)
    store.objects.update(LITTLE.keys() | OTHER.keys())

    def retrying() -> Retrying:
        return Retrying(store, AT_ONCE, Observers(ear, RetriesOfJobs(pulls.get)))

    with open_cache(directory / "state", fsync="off", now=time.time) as cache:
        async with (
            open_stores(lambda _uri: nullcontext(retrying()), settings.daemon.stores) as stores,
            open_pulls(settings, cache, stores, ear, time.time) as pulls,
        ):
            yield pulls, store


async def test_the_steps_of_a_pull_are_told_at_its_end(tmp_path: Path) -> None:
    ear = Ear()
    async with opened(tmp_path, ear) as (pulls, _):
        job = await pulls.start(PullRequest(LITTLE.id, STORE), detached=True)
        view = await job.wait()
    ((told, steps),) = ear.ended
    assert (told.job_id, told.state, told.ended_at) == (view.job_id, "done", view.ended_at)
    assert [step.state for step in steps] == [
        "queued",
        "reading_manifest",
        "planning",
        "fetching",
        "publishing",
    ]
    assert [step.began_at for step in steps] == sorted(step.began_at for step in steps)
    assert steps[0].began_at == view.created_at
    assert ear.refused == []


async def test_a_retry_is_of_the_job_that_asked(tmp_path: Path) -> None:
    ear = Ear()
    async with opened(tmp_path, ear) as (pulls, store):
        store.faults.add(Fault("get", ".objects/*", {1}, error=Throttled("slow")))
        store.faults.add(Fault("get_document", "*", {1}, error=Throttled("slow")))
        job = await pulls.start(PullRequest(LITTLE.id, STORE), detached=True)
        await job.wait()
    assert len(ear.retries_of) >= 2
    assert job.view().retries == len(ear.retries_of)
    assert set(ear.retries_of) == {job.job_id}


async def test_what_arrives_is_told_as_it_does_by_where_it_comes_from(tmp_path: Path) -> None:
    ear = Ear()
    other = sample({**{f"f{n}": f"content {n}".encode() for n in range(9)}, "more": b"of it"})
    daemon = replace(SETTINGS.daemon, pulls_running_max=2)
    transfer = TransferSettings(batch_objects=3)
    settings = replace(SETTINGS, daemon=daemon, transfer=transfer)
    async with opened(tmp_path, ear, settings) as (pulls, store):
        store.objects.update(other.keys())
        stall = Stall()
        store.faults.add(Fault("get", object_key(digest_of(b"content 8")), stall=stall))
        first = await pulls.start(PullRequest(LITTLE.id, STORE), detached=True)
        await stall.reached.wait()
        second = await pulls.start(PullRequest(other.id, STORE), detached=True)
        with anyio.fail_after(60):
            while not ear.objects_from("store"):  # noqa: ASYNC110 - one batch is whole by then
                await anyio.sleep(0.01)
        assert not first.view().ended
        stall.release()
        views = [await first.wait(), await second.wait()]
    fetched = sum(view.objects_fetched for view in views)
    assert ear.objects_from("store") == 10
    assert ear.objects_from("shared") == fetched - 10
    assert ear.objects_from("cache") == sum(view.objects_cached for view in views)


async def test_who_goes_round_and_round_keeps_only_the_last_steps(tmp_path: Path) -> None:
    async with opened(tmp_path, Ear()) as (pulls, _):
        job = await pulls.start(PullRequest(LITTLE.id, STORE), detached=True)
        await job.wait()
        for _ in range(STEPS_MAX):
            job.enter("planning")
            job.enter("waiting_for_space")
        assert len(job.steps) == STEPS_MAX


async def test_refusals_are_heard_with_their_reason(tmp_path: Path) -> None:
    ear = Ear()
    daemon = replace(SETTINGS.daemon, pulls_queued_max=1)
    async with opened(tmp_path, ear, replace(SETTINGS, daemon=daemon)) as (pulls, store):
        with pytest.raises(StoreNotAllowed):
            await pulls.start(PullRequest(LITTLE.id, "memory://elsewhere"))
        stall = Stall()
        store.faults.add(Fault("get", ".objects/*", stall=stall))
        await pulls.start(PullRequest(LITTLE.id, STORE), detached=True)
        await stall.reached.wait()
        await pulls.start(PullRequest(OTHER.id, STORE), detached=True)
        with anyio.fail_after(60):
            while not pulls.queued_count:  # noqa: ASYNC110 - nobody tells when it has queued up
                await anyio.sleep(0.01)
        with pytest.raises(QueueFull):
            await pulls.start(PullRequest(THIRD.id, STORE))
        stall.release()
        await pulls.drain(20.0)
        with pytest.raises(DaemonStopping):
            await pulls.start(PullRequest(OTHER.id, STORE))
    assert ear.refused == ["store_not_allowed", "queue_full", "daemon_stopping"]


async def test_a_pull_that_never_fits_is_refused_once_for_the_limit(tmp_path: Path) -> None:
    ear = Ear()
    settings = replace(SETTINGS, cache=CacheSettings(max_bytes=8192, min_free_bytes=1))
    async with opened(tmp_path, ear, settings) as (pulls, _):
        request = PullRequest(LITTLE.id, STORE, wait_for_space=True)
        job = await pulls.start(request, detached=True)
        with pytest.raises(CacheFull), anyio.fail_after(60):
            await job.wait()
    assert ear.refused == ["quota"]
    ((told, _),) = ear.ended
    assert told.error is not None
    assert told.error["code"] == "cache_full"


async def test_only_who_works_is_under_way(tmp_path: Path) -> None:
    async with opened(tmp_path, Ear()) as (pulls, store):
        stall = Stall()
        store.faults.add(Fault("get", ".objects/*", stall=stall))
        at_work = await pulls.start(PullRequest(LITTLE.id, STORE), detached=True)
        await stall.reached.wait()
        queued = await pulls.start(PullRequest(OTHER.id, STORE), detached=True)
        with anyio.fail_after(60):
            while not pulls.queued_count:  # noqa: ASYNC110 - nobody tells when it has queued up
                await anyio.sleep(0.01)
        assert [view.job_id for view in pulls.under_way()] == [at_work.job_id]
        queued.enter("waiting_for_space")
        assert pulls.waiting_count == 1
        stall.release()
        await at_work.wait()
        await queued.wait()
        assert pulls.under_way() == []
        assert pulls.waiting_count == 0
