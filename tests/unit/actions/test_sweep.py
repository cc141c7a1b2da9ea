from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.actions.sweep import Sweeper
from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import SnapshotInUse, SnapshotNotFound
from snapd.model.eviction import objects_in
from snapd.model.leases import LeaseRequest
from snapd.model.settings import CacheSettings
from snapd.runtime.metrics import Metrics
from tests.caching import assert_sound, assert_tree, ref_of, store, store_all
from tests.samples import Sample, sample
from tests.unit.runtime.test_metrics import samples

DAY = 86400.0
SETTINGS = CacheSettings(lease_seconds=100.0, orphan_seconds=DAY)
A = sample({"a": b"a" * 5000, "shared": b"s" * 5000}, modes={"": 0o555})
B = sample({"b": b"b" * 5000, "shared": b"s" * 5000})
C = sample({"c": b"c" * 5000, "twice/c": b"c" * 5000})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", fsync="off", now=clock) as opened:
        yield opened


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1")


@pytest.fixture
def sweeper(cache: Cache, clock: Clock, metrics: Metrics) -> Sweeper:
    for each in (A, B, C):
        store_all(cache, each)
        cache.publish(each.manifest, store="s3://b", now=clock.now)
        clock.now += 1.0
    clock.now += 1000.0
    return Sweeper(cache, SETTINGS, observer=metrics, now=clock)


def blobs(cache: Cache) -> set[str]:
    return {digest for digest, _ in cache.blobs.iterate()}


def objects(*made: Sample) -> set[str]:
    return {digest for each in made for digest in each.objects}


def snapshots(cache: Cache) -> set[str]:
    return {view.snapshot_id for view in cache.index.snapshots()}


def test_what_goes_leaves_nothing_and_what_is_shared_stays(
    cache: Cache, sweeper: Sweeper, metrics: Metrics
) -> None:
    before = sweeper.look().usage
    report = sweeper.sweep(sweeper.look(), 8192, cause="watermark", why=True)
    assert [each.snapshot_id for each in report.evicted] == [A.id]
    assert {each.snapshot_id: each.reason for each in report.kept} == {
        B.id: "used_later",
        C.id: "used_later",
    }
    assert blobs(cache) == objects(B, C)
    assert snapshots(cache) == {B.id, C.id}
    assert set(cache.trees.iterate()) == set(cache.manifests.iterate()) == {B.id, C.id}
    assert_sound(cache.root)
    after = sweeper.look().usage
    assert (before.blob_bytes - after.blob_bytes, before.tree_bytes - after.tree_bytes) == (
        8192,
        4096,
    )
    assert report.freed_bytes == 8192 + 4096 + 4096  # its object, its directory, its manifest
    assert report.evicted[0].freed_bytes == report.freed_bytes
    assert samples(metrics)["snapd_evictions_total", "watermark"] == 1


def test_a_dry_run_changes_nothing(cache: Cache, sweeper: Sweeper) -> None:
    report = sweeper.sweep(sweeper.look(), 10**9, cause="request", dryrun=True)
    assert {each.snapshot_id for each in report.evicted} == {A.id, B.id, C.id}
    assert not report.satisfied
    assert blobs(cache) == objects(A, B, C)
    assert snapshots(cache) == {A.id, B.id, C.id}


def test_leases_and_late_uses_hold(cache: Cache, sweeper: Sweeper, clock: Clock) -> None:
    cache.leases.add(LeaseRequest(A.id, "pin", reason="release"))
    cache.index.touch(B.id, clock.now)
    report = sweeper.sweep(sweeper.look(), 10**9, cause="request", why=True)
    assert [each.snapshot_id for each in report.evicted] == [C.id]
    held = {each.snapshot_id: each.explain() for each in report.kept}
    assert "release" in held[A.id]
    assert "given out" in held[B.id]
    clock.now += 101.0
    again = sweeper.sweep(sweeper.look(), 10**9, cause="request")
    assert [each.snapshot_id for each in again.evicted] == [B.id]
    assert_tree(cache.trees.path(A.id), A.manifest)


def test_who_comes_between_decision_and_deed_is_respected(
    cache: Cache, sweeper: Sweeper, clock: Clock
) -> None:
    decision = sweeper.decide(sweeper.look(), 10**9)
    assert len(decision.evict) == 3
    cache.leases.add(LeaseRequest(A.id, "pin"))
    cache.index.touch(B.id, clock.now)
    with cache.snapshot_lock(C.id):
        assert sweeper.perform(decision, "request").evicted == ()
    assert snapshots(cache) == {A.id, B.id, C.id}
    assert blobs(cache) == objects(A, B, C)


def test_orphans_go_when_they_are_old_or_nothing_else_helps(cache: Cache, sweeper: Sweeper) -> None:
    for body, age in ((b"old", 2 * DAY), (b"young", 0.0)):
        store(cache, ref_of(body), body)
        path = cache.blobs.path(ref_of(body).digest, 0o644)
        os.utime(path, (2000.0 - age, 2000.0 - age))
    report = sweeper.sweep(sweeper.look(), 0, cause="watermark")
    assert (report.evicted, report.blobs_removed, report.orphan_bytes) == ((), 1, 4096)
    assert blobs(cache) == objects(A, B, C) | {ref_of(b"young").digest}
    sweeper.sweep(sweeper.look(), 10**9, cause="watermark")
    assert blobs(cache) == set()


def test_what_a_running_pull_relies_on_stays(cache: Cache, sweeper: Sweeper) -> None:
    relied_on = objects_in(A.manifest.text)
    cache.reliance.begin(relied_on)
    report = sweeper.sweep(sweeper.look(), 10**9, cause="request")
    assert {each.snapshot_id for each in report.evicted} >= {B.id, C.id}
    assert blobs(cache) == objects(A)
    cache.reliance.end(relied_on)


def test_while_another_process_pulls_objects_stay_for_later(
    cache: Cache, sweeper: Sweeper, clock: Clock
) -> None:
    with open_cache(cache.root, fsync="off", now=clock) as other:
        relied_on = objects_in(A.manifest.text)
        other.reliance.begin(relied_on)
        report = sweeper.sweep(sweeper.look(), 10**9, cause="request")
        assert report.blobs_in_use
        assert snapshots(cache) == set()
        assert blobs(cache) == objects(A, B, C)
        other.reliance.end(relied_on)
    assert sweeper.sweep(sweeper.look(), 10**9, cause="request").blobs_removed == 4


def test_hard_links_elsewhere_are_known(cache: Cache, sweeper: Sweeper, tmp_path: Path) -> None:
    for path in (cache.trees.path(A.id) / "a", cache.trees.path(A.id) / "shared"):
        os.link(path, tmp_path / path.name)
    report = sweeper.sweep(sweeper.look(), 4096, cause="request", why=True)
    assert [each.snapshot_id for each in report.evicted] == [B.id]
    (kept,) = (each for each in report.kept if each.snapshot_id == A.id)
    assert kept.reason == "frees_nothing"


def test_stale_manifests_go(cache: Cache, sweeper: Sweeper, clock: Clock) -> None:
    clock.now += 2 * DAY
    stale, fresh = sample({"x": b"stale"}), sample({"x": b"fresh"})
    for each, age in ((stale, DAY + 1), (fresh, DAY - 1)):
        cache.manifests.save(each.id, each.manifest.text)
        os.utime(cache.manifests.root / each.id, (clock.now - age, clock.now - age))
    sweeper.sweep(sweeper.look(), 0, cause="watermark")
    assert set(cache.manifests.iterate()) == {A.id, B.id, C.id, fresh.id}


def test_one_is_evicted_by_name_unless_it_is_held(
    cache: Cache, sweeper: Sweeper, clock: Clock
) -> None:
    with pytest.raises(SnapshotNotFound):
        sweeper.evict(sample({"x": b"absent"}).id)
    cache.index.touch(A.id, clock.now)
    with pytest.raises(SnapshotInUse, match="given out"):
        sweeper.evict(A.id)
    lease = cache.leases.add(LeaseRequest(A.id, "pin", reason="mine"))
    with pytest.raises(SnapshotInUse, match="mine"):
        sweeper.evict(A.id, given_out_too=True)
    cache.leases.remove(lease.lease_id)
    with cache.snapshot_lock(A.id), pytest.raises(SnapshotInUse, match="works on it"):
        sweeper.evict(A.id, given_out_too=True)
    report = sweeper.evict(A.id, given_out_too=True)
    assert (report.blobs_removed, report.evicted[0].reason) == (1, "requested")
    assert blobs(cache) == objects(B, C)
