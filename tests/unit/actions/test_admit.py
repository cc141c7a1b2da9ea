from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import pytest

from snapd.actions.admit import Admission
from snapd.actions.jobs import Job
from snapd.actions.pulls import Pulls, open_pulls
from snapd.disk.cache import Cache, open_cache
from snapd.disk.fsops import DiskSpace
from snapd.model.errors import CacheFull, ConnectionLost, JobCancelled
from snapd.model.eviction import objects_in
from snapd.model.jobs import JobView, PullRequest
from snapd.model.layout import object_key
from snapd.model.leases import LeaseRequest
from snapd.model.settings import CacheSettings, DaemonSettings, Settings
from snapd.model.space import SweepRequest
from snapd.model.uris import StoreUri
from snapd.remote.base import RemoteStore
from snapd.remote.memory import Fault, MemoryStore, Stall
from snapd.remote.stores import open_stores
from snapd.runtime.metrics import Metrics
from tests.caching import assert_sound, assert_tree
from tests.samples import Sample, sample
from tests.unit.runtime.test_metrics import samples

UNIT = 8192
FIXED_BYTES = 100 * UNIT
"""More than the index and the empty directories of a cache take."""


def made(units: int) -> Sample:
    """Make a snapshot of one object."""
    return sample({"f": os.urandom(units * UNIT)})


@dataclass
class Bench:
    cache: Cache
    pulls: Pulls
    store: MemoryStore
    metrics: Metrics

    @property
    def admission(self) -> Admission:
        return self.pulls.admission

    async def start(self, snapshot: Sample, *, wait: bool = False) -> Job:
        self.store.objects.update(snapshot.keys())
        request = PullRequest(snapshot.id, "memory://store", wait_for_space=wait)
        return await self.pulls.start(request, detached=True)

    async def pull(self, snapshot: Sample, *, wait: bool = False) -> JobView:
        with anyio.fail_after(60):
            return await (await self.start(snapshot, wait=wait)).wait()

    def complete(self) -> set[str]:
        return {view.snapshot_id for view in self.cache.index.snapshots()}

    def disk_has(self, monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
        monkeypatch.setattr(self.cache, "space", lambda: DiskSpace(2**40, free_bytes))


OpenBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def bench(tmp_path: Path) -> OpenBench:
    clock = iter(range(1000, 10**6))

    @asynccontextmanager
    async def opened(**cache_settings: float) -> AsyncIterator[Bench]:
        limits = {"lease_seconds": 0.0, "min_free_bytes": 0, **cache_settings}
        settings = Settings(
            daemon=DaemonSettings(stores=("memory://store",), pulls_running_max=2),
            cache=CacheSettings(**limits),  # type: ignore[arg-type]
        )
        store, metrics = MemoryStore("memory://store"), Metrics(version="1")

        def now() -> float:
            return float(next(clock))

        def opener(_: StoreUri) -> AbstractAsyncContextManager[RemoteStore]:
            return nullcontext(store)

        with open_cache(tmp_path / "state", fsync="off", now=now) as cache:
            async with (
                open_stores(opener, settings.daemon.stores) as kept,
                open_pulls(settings, cache, kept, metrics, now) as pulls,
            ):
                yield Bench(cache, pulls, store, metrics)

    return opened


async def test_what_fits_evicts_nothing(bench: OpenBench) -> None:
    one, two = made(300), made(300)
    async with bench(max_bytes=FIXED_BYTES + 700 * UNIT) as node:
        await node.pull(one)
        await node.pull(two)
        assert node.complete() == {one.id, two.id}
        assert node.admission.reserved_bytes == 0
        assert 600 * UNIT < node.admission.used_bytes < FIXED_BYTES + 700 * UNIT


async def test_exactly_enough_of_the_least_recently_used_goes(bench: OpenBench) -> None:
    one, two, three, four = (made(300) for _ in range(4))
    async with bench(max_bytes=FIXED_BYTES + 1000 * UNIT) as node:
        for each in (one, two, three):
            await node.pull(each)
        await node.pull(one)
        await node.pull(four)
        assert node.complete() == {one.id, three.id, four.id}
        assert_sound(node.cache.root)
        seen = samples(node.metrics)
        assert seen["snapd_evictions_total", "admission"] == 1
        assert seen["snapd_evicted_bytes_total", "admission"] > 300 * UNIT


async def test_what_can_not_fit_is_refused_before_the_first_object(bench: OpenBench) -> None:
    held, free, large = made(500), made(200), made(700)
    async with bench(max_bytes=FIXED_BYTES + 800 * UNIT) as node:
        await node.pull(held)
        await node.pull(free)
        node.cache.leases.add(LeaseRequest(held.id, "pin", reason="release 3"))
        node.store.faults.requests.clear()
        with pytest.raises(CacheFull) as caught:
            await node.pull(large)
        details = caught.value.details
        assert (details["limit"], details["hopeless"]) == ("quota", False)
        assert details["required_bytes"] >= 700 * UNIT
        assert 200 * UNIT < details["available_bytes"] < 700 * UNIT
        assert details["holders"][0]["snapshot_id"] == held.id
        assert "release 3" in caught.value.message
        assert node.store.faults.count("get") == 0
        assert node.complete() == {held.id, free.id}
        assert samples(node.metrics)["snapd_pulls_refused_total", "quota"] == 1
        assert node.admission.reserved_bytes == 0


async def test_the_disk_bounds_it_too(bench: OpenBench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = made(300), made(300)
    async with bench(min_free_bytes=1000 * UNIT) as node:
        node.disk_has(monkeypatch, 1400 * UNIT)
        await node.pull(one)
        node.disk_has(monkeypatch, 1050 * UNIT)
        node.cache.leases.add(LeaseRequest(one.id, "pin"))
        with pytest.raises(CacheFull, match=r"to keep 7\.8 MiB free"):
            await node.pull(two)
        assert samples(node.metrics)["snapd_pulls_refused_total", "disk"] == 1


async def test_running_pulls_reserve_and_give_back(bench: OpenBench) -> None:
    running, second, third = made(500), made(500), made(200)
    stall = Stall()
    async with bench(max_bytes=FIXED_BYTES + 800 * UNIT) as node:
        (digest,) = running.objects
        node.store.faults.add(Fault("get", object_key(digest), stall=stall))
        job = await node.start(running)
        await stall.reached.wait()
        assert node.admission.reserved_bytes > 500 * UNIT
        with pytest.raises(CacheFull, match="promised to other pulls"):
            await node.pull(second)
        await node.pull(third)
        node.pulls.cancel(job.job_id)
        with pytest.raises(JobCancelled), anyio.fail_after(60):
            await job.wait()
        assert node.admission.reserved_bytes == 0
        await node.pull(second)
        assert second.id in node.complete()


async def test_who_waits_for_space_gets_it_when_it_is_there(bench: OpenBench) -> None:
    running, waiting = made(500), made(500)
    stall = Stall()
    async with bench(max_bytes=FIXED_BYTES + 800 * UNIT) as node:
        (digest,) = running.objects
        node.store.faults.add(Fault("get", object_key(digest), stall=stall))
        first = await node.start(running)
        await stall.reached.wait()
        second = await node.start(waiting, wait=True)
        async for view in second.changes(0.01):
            if view.state == "waiting_for_space":
                break
        assert node.pulls.running_count == 1
        stall.release()
        with anyio.fail_after(60):
            await first.wait()
            assert (await second.wait()).state == "done"
        assert node.complete() == {waiting.id}


async def test_nobody_waits_for_what_never_fits(bench: OpenBench) -> None:
    async with bench(max_bytes=FIXED_BYTES) as node:
        with pytest.raises(CacheFull) as caught:
            await node.pull(made(900), wait=True)
        assert caught.value.details["hopeless"]


async def test_a_failed_pull_keeps_what_is_verified_unless_space_is_needed(
    bench: OpenBench,
) -> None:
    broken = sample({f"f{number}": os.urandom(100 * UNIT) for number in range(4)})
    async with bench(max_bytes=FIXED_BYTES + 600 * UNIT) as node:
        lost = object_key(next(reversed(broken.objects)))
        node.store.faults.add(Fault("get", lost, cut_bytes=0))
        with pytest.raises(ConnectionLost):
            await node.pull(broken)
        kept = sum(1 for _ in node.cache.blobs.iterate())
        node.store.faults = MemoryStore("memory://x").faults
        view = await node.pull(broken)
        assert view.objects_cached == kept
        await node.pulls.admission.evict(broken.id)
        for each in (made(300), made(500)):
            await node.pull(each)
            assert node.complete() == {each.id}


async def test_what_vanishes_on_the_way_is_planned_again(bench: OpenBench) -> None:
    """Somebody without our locks removes an object that the plan counted on."""
    first = sample({"f": b"common" * 1000})
    second = sample({"f": b"common" * 1000, "own": b"own"})
    stall = Stall()
    async with bench() as node:
        await node.pull(first)
        own = object_key(next(digest for digest, data in second.objects.items() if data == b"own"))
        node.store.faults.add(Fault("get", own, stall=stall))
        job = await node.start(second)
        await stall.reached.wait()
        (common,) = first.objects
        node.cache.blobs.path(common, 0o644).unlink()
        stall.release()
        with anyio.fail_after(60):
            view = await job.wait()
        assert_tree(Path(view.tree), second.manifest)


async def test_what_a_running_pull_counts_on_is_not_swept(bench: OpenBench) -> None:
    first = sample({"f": b"common" * 1000})
    second = sample({"f": b"common" * 1000, "own": b"own"})
    stall = Stall()
    async with bench() as node:
        await node.pull(first)
        own = object_key(next(digest for digest, data in second.objects.items() if data == b"own"))
        node.store.faults.add(Fault("get", own, stall=stall))
        job = await node.start(second)
        await stall.reached.wait()
        report = await node.admission.evict(first.id)
        assert (report.blobs_removed, node.complete()) == (0, set())
        stall.release()
        with anyio.fail_after(60):
            view = await job.wait()
        assert_tree(Path(view.tree), second.manifest)
        assert node.store.faults.requests["get", object_key(next(iter(first.objects)))] == 1
        assert not node.cache.reliance.is_wanted(objects_in(second.manifest.text)[0])


async def test_a_plan_tells_what_a_pull_then_does(bench: OpenBench) -> None:
    one, two = made(500), made(500)
    async with bench(max_bytes=FIXED_BYTES + 800 * UNIT) as node:
        await node.pull(one)
        node.store.objects.update(two.keys())
        request = PullRequest(two.id, "memory://store")
        plan = await node.pulls.foretell(request)
        assert (plan.fits, plan.complete, plan.bytes_to_fetch) == (True, False, 500 * UNIT)
        assert [each.snapshot_id for each in plan.evict] == [one.id]
        assert node.complete() == {one.id}
        node.cache.leases.add(LeaseRequest(one.id, "pin"))
        refused = await node.pulls.foretell(request)
        assert (refused.fits, refused.evict) == (False, ())
        assert refused.kept[0].snapshot_id == one.id
        done = await node.pulls.foretell(PullRequest(one.id, "memory://store"))
        assert (done.complete, done.bytes_to_fetch) == (True, 0)


async def test_above_the_high_watermark_it_sweeps_by_itself(bench: OpenBench) -> None:
    snapshots = [made(300) for _ in range(4)]
    limits = {"max_bytes": 2000 * UNIT, "high_watermark": 0.55, "low_watermark": 0.5}
    async with bench(**limits) as node:
        node.admission.begin_sweeping()
        for each in snapshots:
            await node.pull(each)
        with anyio.fail_after(60):
            while node.admission.used_bytes > 1000 * UNIT:
                await node.admission.wait_for_change()
        assert snapshots[-1].id in node.complete()
        assert snapshots[0].id not in node.complete()
        assert samples(node.metrics)["snapd_evictions_total", "watermark"] >= 1


async def test_limits_change_while_it_runs(bench: OpenBench) -> None:
    one, two = made(500), made(500)
    async with bench(max_bytes=FIXED_BYTES + 500 * UNIT) as node:
        await node.pull(one)
        node.cache.leases.add(LeaseRequest(one.id, "pin"))
        job = await node.start(two, wait=True)
        async for view in job.changes(0.01):
            if view.state == "waiting_for_space":
                break
        node.admission.apply(replace(node.admission.settings, max_bytes=0))
        with anyio.fail_after(60):
            await job.wait()
        assert node.complete() == {one.id, two.id}


async def test_a_sweep_on_request_goes_to_the_low_watermark_or_as_far_as_asked(
    bench: OpenBench,
) -> None:
    one, two = made(300), made(300)
    async with bench(max_bytes=2000 * UNIT, low_watermark=0.3) as node:
        await node.pull(one)
        await node.pull(two)
        dry = await node.admission.sweep(SweepRequest(dryrun=True, why=True))
        assert [each.snapshot_id for each in dry.evicted] == [one.id]
        assert dry.needed_bytes == dry.used_bytes - 600 * UNIT
        assert node.complete() == {one.id, two.id}
        await node.admission.sweep(SweepRequest(free_bytes=1))
        assert node.complete() == {two.id}
        all_of_it = await node.admission.sweep(SweepRequest(free_bytes=2**40))
        assert (all_of_it.satisfied, node.complete()) == (False, set())
