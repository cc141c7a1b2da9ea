from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from snapd.actions.jobs import Job
from snapd.actions.pulls import Pulls, open_pulls
from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import (
    ConnectionLost,
    DaemonStopping,
    DigestMismatch,
    JobCancelled,
    JobNotFound,
    ObjectMissing,
    QueueFull,
    SnapshotNotFound,
    StoreNotAllowed,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.jobs import JobView, PullRequest
from snapd.model.layout import manifest_key, object_key
from snapd.model.settings import DaemonSettings, Settings, TransferSettings
from snapd.model.uris import StoreUri
from snapd.remote.base import RemoteStore
from snapd.remote.memory import Fault, MemoryStore, Stall
from snapd.remote.stores import open_stores
from snapd.runtime.observer import SilentObserver
from tests.samples import Sample, sample

SETTINGS = Settings(
    daemon=DaemonSettings(stores=("memory://store", "memory://other")),
    transfer=TransferSettings(
        objects_in_flight=32,
        bytes_in_flight=4_000_000,
        batch_objects=8,
        large_object_bytes=1_000_000,
        range_bytes=300_000,
    ),
)


@dataclass
class Bench:
    """A node on a fresh state directory with stores in memory."""

    cache: Cache
    pulls: Pulls
    store: MemoryStore
    other: MemoryStore

    async def pull(self, snapshot_id: SnapshotId, store: str = "memory://store") -> JobView:
        job = await self.pulls.start(PullRequest(snapshot_id, store))
        async with job.attached():
            with anyio.fail_after(60):
                return await job.wait()

    def staged(self) -> list[str]:
        """Name what is left of unfinished work."""
        staging = self.cache.root / "staging"
        return [
            str(path) for path in staging.rglob("*") if path.is_file() and path.name != "marker"
        ]


OpenBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def bench(tmp_path: Path) -> OpenBench:
    @asynccontextmanager
    async def opened(settings: Settings = SETTINGS) -> AsyncIterator[Bench]:
        stores = {name: MemoryStore(f"memory://{name}") for name in ("store", "other")}

        def opener(uri: StoreUri) -> AbstractAsyncContextManager[RemoteStore]:
            return nullcontext(stores[uri.bucket])

        with open_cache(tmp_path / "state", fsync="off", now=time.time) as cache:
            async with (
                open_stores(opener, settings.daemon.stores) as kept,
                open_pulls(settings, cache, kept, SilentObserver(), time.time) as pulls,
            ):
                yield Bench(cache, pulls, stores["store"], stores["other"])

    return opened


@pytest.fixture
def little() -> Sample:
    files = {f"d{number % 3}/f{number}": f"content {number}".encode() for number in range(40)}
    return sample({**files, "twice/a": b"same", "twice/b": b"same", "empty": b""})


@pytest.fixture
def large() -> Sample:
    body = bytes(range(256)) * 10_000
    return sample({"big.bin": body, "note": b"beside it"})


def contents(tree: Path) -> dict[str, bytes]:
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file()
    }


async def test_a_pull_brings_each_distinct_object_once(bench: OpenBench, little: Sample) -> None:
    async with bench() as node:
        node.store.objects.update(little.keys())
        view = await node.pull(little.id)
        assert view.state == "done"
        assert view.objects_total == view.objects_fetched == len(little.objects)
        assert view.bytes_fetched == view.bytes_total == sum(map(len, little.objects.values()))
        tree = contents(Path(view.tree))
        assert tree["twice/a"] == tree["twice/b"] == b"same"
        assert len(tree) == 43
        requests = {n for (kind, _), n in node.store.faults.requests.items() if kind == "get"}
        assert requests == {1}


async def test_a_second_pull_asks_no_store(bench: OpenBench, little: Sample) -> None:
    async with bench() as node:
        node.store.objects.update(little.keys())
        first = await node.pull(little.id)
        node.store.faults.requests.clear()
        node.store.exists = False
        second = await node.pull(little.id)
        assert second.tree == first.tree
        assert (second.bytes_fetched, second.objects_fetched) == (0, 0)
        assert second.bytes_cached == first.bytes_fetched
        assert not node.store.faults.requests


async def test_objects_of_another_snapshot_are_not_fetched_again(
    bench: OpenBench, little: Sample
) -> None:
    more = sample({"new": b"new", "old": b"same", "script": b"content 1"}, modes={"script": 0o755})
    async with bench() as node:
        node.store.objects.update({**little.keys(), **more.keys()})
        await node.pull(little.id)
        view = await node.pull(more.id)
        assert (view.objects_total, view.objects_cached, view.objects_fetched) == (3, 2, 1)
        script = Path(view.tree) / "script"
        assert script.read_bytes() == b"content 1"
        assert script.stat().st_mode & 0o7777 == 0o755
        assert node.store.faults.requests["get", object_key(digest_of(b"content 1"))] == 1


async def test_a_large_object_comes_in_ranges(bench: OpenBench, large: Sample) -> None:
    async with bench() as node:
        node.store.objects.update(large.keys())
        view = await node.pull(large.id)
        assert contents(Path(view.tree))["big.bin"] == bytes(range(256)) * 10_000
        key = object_key(digest_of(bytes(range(256)) * 10_000))
        assert node.store.faults.requests["get", key] == 9
        assert view.bytes_fetched == view.bytes_total


async def test_what_came_of_a_range_counts_at_once(bench: OpenBench, large: Sample) -> None:
    stall = Stall(after_bytes=100_000)
    async with bench() as node:
        node.store.objects.update(large.keys())
        key = object_key(digest_of(bytes(range(256)) * 10_000))
        node.store.faults.add(Fault("get", key, stall=stall))
        job = await node.pulls.start(PullRequest(large.id, "memory://store"), detached=True)
        with anyio.fail_after(60):
            await stall.reached.wait()
        assert job.view().bytes_fetched >= 100_000
        stall.release()
        with anyio.fail_after(60):
            view = await job.wait()
        assert view.bytes_fetched == view.bytes_total


async def test_a_hundred_callers_cause_one_fetch(bench: OpenBench, little: Sample) -> None:
    async with bench() as node:
        node.store.objects.update(little.keys())
        trees: list[str] = []

        async def ask() -> None:
            trees.append((await node.pull(little.id)).tree)

        async with anyio.create_task_group() as callers:
            for _ in range(100):
                callers.start_soon(ask)
        assert len(trees) == 100
        assert len(set(trees)) == 1
        assert node.store.faults.count("get") == len(little.objects)


async def test_snapshots_with_objects_in_common_share_flights(
    bench: OpenBench, little: Sample
) -> None:
    shared = {f"s{number}": f"content {number}".encode() for number in range(40)}
    sibling = sample({**shared, "own": b"own"})
    async with bench() as node:
        node.store.objects.update({**little.keys(), **sibling.keys()})
        async with anyio.create_task_group() as callers:
            callers.start_soon(node.pull, little.id)
            callers.start_soon(node.pull, sibling.id)
        distinct = set(little.objects) | set(sibling.objects)
        assert node.store.faults.count("get") == len(distinct)


async def test_a_caller_leaves_and_the_others_go_on(bench: OpenBench, little: Sample) -> None:
    stall = Stall()
    async with bench() as node:
        node.store.objects.update(little.keys())
        node.store.faults.add(Fault("get", ".objects/*", stall=stall))
        job = await node.pulls.start(PullRequest(little.id, "memory://store"))
        async with anyio.create_task_group() as callers:
            callers.start_soon(node.pull, little.id)
            await stall.reached.wait()
            with anyio.CancelScope() as scope:
                async with job.attached():
                    assert job.view().waiters == 2
                    scope.cancel()
                    await job.wait()
            assert job.view().waiters == 1
            stall.release()
        assert job.view().state == "done"


async def test_the_last_caller_ends_it_and_nothing_half_done_stays(
    bench: OpenBench, little: Sample, large: Sample
) -> None:
    both = sample({"small": b"x" * 10, "big.bin": bytes(range(256)) * 10_000})
    stall = Stall(after_bytes=100_000)
    async with bench() as node:
        node.store.objects.update(both.keys())
        big = object_key(digest_of(bytes(range(256)) * 10_000))
        node.store.faults.add(Fault("get", big, stall=stall))
        job = await node.pulls.start(PullRequest(both.id, "memory://store"))
        with anyio.CancelScope() as scope:
            async with job.attached():
                await stall.reached.wait()
                scope.cancel()
                await job.wait()
        with anyio.fail_after(60):
            await job.flight.ended.wait()
        view = job.view()
        assert view.state == "cancelled"
        assert node.staged() == []
        assert not (node.cache.root / "trees" / both.id).exists()
        stall.release()
        node.store.faults.requests.clear()
        again = await node.pull(both.id)
        assert again.state == "done"


async def test_cancel_ends_it_for_everybody(bench: OpenBench, little: Sample) -> None:
    stall = Stall()
    async with bench() as node:
        node.store.objects.update(little.keys())
        node.store.faults.add(Fault("get", ".objects/*", stall=stall))
        job = await node.pulls.start(PullRequest(little.id, "memory://store"), detached=True)
        await stall.reached.wait()
        assert node.pulls.cancel(job.job_id) is job
        with anyio.fail_after(60), pytest.raises(JobCancelled):
            await job.wait()
        assert node.pulls.jobs()[0].state == "cancelled"


async def test_wrong_bytes_once_are_fetched_again(bench: OpenBench, little: Sample) -> None:
    key = object_key(digest_of(b"same"))
    async with bench() as node:
        node.store.objects.update(little.keys())
        node.store.faults.add(Fault("get", key, nth={1}, alter=lambda body: b"x" + body[1:]))
        view = await node.pull(little.id)
        assert contents(Path(view.tree))["twice/a"] == b"same"
        assert node.store.faults.requests["get", key] == 2


@pytest.mark.parametrize("body", [b"same", bytes(range(256)) * 10_000])
async def test_wrong_bytes_always_are_refused_and_kept_apart(bench: OpenBench, body: bytes) -> None:
    damaged = sample({"good": b"good", "dir/bad": body})
    key = object_key(digest_of(body))
    async with bench() as node:
        node.store.objects.update(damaged.keys())
        node.store.objects[key] = b"!" + body[1:]
        with pytest.raises(DigestMismatch) as caught:
            await node.pull(damaged.id)
        assert caught.value.details["path"] == "./dir/bad"
        assert not node.cache.blobs.has(digest_of(body), 0o644)
        assert not (node.cache.root / "trees" / damaged.id).exists()
        assert any((node.cache.root / "quarantine").iterdir())
        assert node.staged() == []
        node.store.objects[key] = body
        view = await node.pull(damaged.id)
        assert contents(Path(view.tree))["dir/bad"] == body


@pytest.mark.parametrize("body", [b"same", bytes(range(256)) * 10_000])
async def test_a_missing_object_is_named_with_a_path(bench: OpenBench, body: bytes) -> None:
    holed = sample({"good": b"good", "dir/gone": body})
    async with bench() as node:
        node.store.objects.update(holed.keys())
        del node.store.objects[object_key(digest_of(body))]
        with pytest.raises(ObjectMissing) as caught:
            await node.pull(holed.id)
        assert caught.value.details["path"] == "./dir/gone"
        assert caught.value.details["object"] == digest_of(body)


async def test_no_such_snapshot(bench: OpenBench, little: Sample) -> None:
    async with bench() as node:
        with pytest.raises(SnapshotNotFound):
            await node.pull(little.id)


async def test_a_manifest_of_another_id_is_refused(bench: OpenBench, little: Sample) -> None:
    wrong = SnapshotId("0" * 64)
    async with bench() as node:
        node.store.objects.update(little.keys())
        node.store.objects[manifest_key(wrong)] = little.manifest.text
        with pytest.raises(DigestMismatch):
            await node.pull(wrong)
        assert node.store.faults.requests["get_document", manifest_key(wrong)] == 2


async def test_a_pull_from_another_store_does_not_fail_with_the_first(
    bench: OpenBench, little: Sample
) -> None:
    """A flight of a store that fails is flown again from the store of whoever still needs it."""
    stall = Stall()
    async with bench() as node:
        node.store.objects.update(little.keys())
        node.other.objects.update(little.keys())
        sibling = sample({f"s{number}": f"content {number}".encode() for number in range(40)})
        node.other.objects.update(sibling.keys())
        node.store.faults.add(Fault("get", ".objects/*", stall=stall, cut_bytes=0))
        failed: list[BaseException] = []

        async def pull_in_vain() -> None:
            try:
                await node.pull(little.id)
            except ConnectionLost as error:
                failed.append(error)

        async with anyio.create_task_group() as callers:
            callers.start_soon(pull_in_vain)
            await stall.reached.wait()
            done = anyio.Event()

            async def pull_other() -> None:
                view = await node.pull(sibling.id, "memory://other")
                assert view.state == "done"
                done.set()

            callers.start_soon(pull_other)
            joined = await node.pulls.start(PullRequest(sibling.id, "memory://other"))
            async for view in joined.changes(0.01):
                if view.state == "fetching":
                    break
            stall.release()
        assert len(failed) == 1
        assert done.is_set()


async def test_a_blocking_pull_goes_before_a_prefetch(bench: OpenBench) -> None:
    one_at_a_time = replace(
        SETTINGS, daemon=replace(SETTINGS.daemon, pulls_running_max=1, pulls_queued_max=3)
    )
    samples = [sample({"f": f"number {number}".encode()}) for number in range(4)]
    stall = Stall()
    ended: list[str] = []
    async with bench(one_at_a_time) as node, anyio.create_task_group() as waiters:
        for each in samples:
            node.store.objects.update(each.keys())
        node.store.faults.add(Fault("get_document", manifest_key(samples[0].id), stall=stall))

        async def wait_for(name: str, job: Job) -> None:
            async with job.attached():
                await job.wait()
                ended.append(name)

        for name, each in zip(["first", "prefetch", "late", "urgent"], samples, strict=True):
            priority = "prefetch" if name in ("prefetch", "late") else "blocking"
            job = await node.pulls.start(
                PullRequest(each.id, "memory://store", priority)  # type: ignore[arg-type]
            )
            waiters.start_soon(wait_for, name, job)
            with anyio.fail_after(60):
                while name != "first" and job.view().queue_position == 0:
                    await anyio.lowlevel.checkpoint()
            await stall.reached.wait()
        with pytest.raises(QueueFull):
            await node.pulls.start(PullRequest(SnapshotId("f" * 64), "memory://store"))
        await node.pulls.start(PullRequest(samples[2].id, "memory://store", "blocking"))
        assert [view.queue_position for view in node.pulls.jobs()] == [0, 3, 1, 2]
        stall.release()
    assert ended == ["first", "late", "urgent", "prefetch"]


async def test_refusals_at_the_door(bench: OpenBench, little: Sample) -> None:
    async with bench() as node:
        with pytest.raises(StoreNotAllowed):
            await node.pulls.start(PullRequest(little.id, "memory://elsewhere"))
        with pytest.raises(JobNotFound):
            node.pulls.get("nobody")
        await node.pulls.drain(0.0)
        with pytest.raises(DaemonStopping):
            await node.pulls.start(PullRequest(little.id, "memory://store"))


async def test_draining_waits_for_running_pulls_and_then_cancels_them(
    bench: OpenBench, little: Sample
) -> None:
    stall = Stall()
    async with bench() as node:
        node.store.objects.update(little.keys())
        node.store.faults.add(Fault("get", ".objects/*", stall=stall))
        job = await node.pulls.start(PullRequest(little.id, "memory://store"), detached=True)
        await stall.reached.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.pulls.drain, 20.0)
            await anyio.lowlevel.checkpoint()
            stall.release()
        assert job.view().state == "done"
        other = sample({"f": b"other"})
        node.store.objects.update(other.keys())


async def test_watchers_see_the_end_and_never_hold_a_job(bench: OpenBench, little: Sample) -> None:
    async with bench() as node:
        node.store.objects.update(little.keys())
        job = await node.pulls.start(PullRequest(little.id, "memory://store"), detached=True)
        with anyio.fail_after(60):
            states = [view.state async for view in job.changes(0.001)]
        assert states[-1] == "done"
        assert "done" not in states[:-1]
        assert [view.state async for view in job.changes(1.0)] == ["done"]


async def test_a_detached_pull_outlives_its_daemon(bench: OpenBench, little: Sample) -> None:
    request = PullRequest(little.id, "memory://store", "prefetch")
    async with bench() as node:
        node.store.objects.update(little.keys())
        with node.cache.snapshot_lock(little.id):
            ordered = await node.pulls.start(request, detached=True)
            waited_for = await node.pulls.start(PullRequest(digest_id("other"), "memory://store"))
            async with waited_for.attached():
                await node.pulls.drain(0)
        assert isinstance(ordered.error, DaemonStopping)
        assert ordered.view().state == "cancelled"
    async with bench() as node:
        node.store.objects.update(little.keys())
        await node.pulls.resume()
        again = node.pulls.get(ordered.job_id)
        assert again.request == request
        with anyio.fail_after(60):
            assert (await again.wait()).state == "done"
            while node.cache.orders.all():
                await anyio.lowlevel.checkpoint()
        assert len(node.pulls.jobs()) == 1


async def test_an_order_that_is_not_allowed_any_more_is_given_up(
    bench: OpenBench, little: Sample
) -> None:
    async with bench() as node:
        node.cache.orders.keep("0123456789ab", PullRequest(little.id, "memory://elsewhere"))
        await node.pulls.resume()
        assert node.pulls.jobs() == []
        assert node.cache.orders.all() == {}


def digest_id(text: str) -> SnapshotId:
    return SnapshotId(digest_of(text.encode()))
