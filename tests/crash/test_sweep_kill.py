"""SIGKILL of a sweep at every step that changes the file system: kept snapshots lack nothing."""

from __future__ import annotations

import os
import shutil
import signal
from itertools import count
from pathlib import Path

from snapd.actions.sweep import Sweeper
from snapd.disk.cache import Cache, open_cache
from snapd.model.leases import LeaseRequest
from snapd.model.settings import CacheSettings
from snapd.runtime.observer import SilentObserver
from tests.caching import assert_sound, assert_tree, ref_of, staged, store, store_all
from tests.crash.steps import run_until
from tests.samples import sample

NOW = 10_000_000_000.0
SETTINGS = CacheSettings(lease_seconds=0.0, orphan_seconds=3600.0)
SHARED = {"shared": b"s" * 5000, "d/shared": b"t" * 100}
PINNED = sample({**SHARED, "mine": b"m"}, modes={"": 0o555, "d/": 0o000})
GOES = sample({**SHARED, "a": b"a", "closed/b": b"b" * 9000}, modes={"": 0o555, "closed/": 0o555})
GOES_TOO = sample({**SHARED, "c": b"c", "twice/a": b"a"})
ALL = (PINNED, GOES, GOES_TOO)


def sweeper_of(cache: Cache) -> Sweeper:
    return Sweeper(cache, SETTINGS, observer=SilentObserver(), now=lambda: NOW)


def fill(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        for each in ALL:
            store_all(cache, each)
            cache.publish(each.manifest, store="s3://b/p", now=9.0)
        store(cache, ref_of(b"orphan"), b"orphan")
        stale = sample({"x": b"never came"})
        cache.manifests.save(stale.id, stale.manifest.text)
        if not cache.leases.holding(PINNED.id):
            cache.leases.add(LeaseRequest(PINNED.id, "pin"))


def sweep(root: Path) -> None:
    with open_cache(root, now=lambda: NOW) as cache:
        sweeper = sweeper_of(cache)
        sweeper.sweep(sweeper.look(), 10**9, cause="request")


def assert_consistent(cache: Cache) -> None:
    """Check that everything that counts as complete is whole, and the pinned one is there."""
    assert_sound(cache.root)
    assert staged(cache.root) == []
    trees = set(cache.trees.iterate())
    assert {view.snapshot_id for view in cache.index.snapshots()} == trees
    assert PINNED.id in trees
    for each in ALL:
        if each.id in trees:
            assert_tree(cache.trees.path(each.id), each.manifest)


def test_a_sweep_killed_anywhere_loses_nothing_that_is_kept(quick_path: Path) -> None:
    root = quick_path / "cache"
    halfway = 0
    for step in count(1):
        fill(root)
        code = run_until(step, lambda: sweep(root))
        assert code in (0, -signal.SIGKILL)
        with open_cache(root, now=lambda: NOW) as cache:
            assert_consistent(cache)
            trees = set(cache.trees.iterate())
            halfway += trees not in ({PINNED.id}, {each.id for each in ALL})
            sweeper = sweeper_of(cache)
            sweeper.sweep(sweeper.look(), 10**9, cause="request")
            assert_consistent(cache)
            assert set(cache.trees.iterate()) == set(cache.manifests.iterate()) == {PINNED.id}
            assert {digest for digest, _ in cache.blobs.iterate()} == set(PINNED.objects)
            for each in ALL:
                store_all(cache, each)
                assert_tree(cache.publish(each.manifest, store="", now=9.0), each.manifest)
        if code == 0:
            break
    shutil.rmtree(root)
    assert step > 40
    assert halfway > 5


def test_a_named_eviction_killed_anywhere_leaves_the_snapshot_whole_or_gone(
    quick_path: Path,
) -> None:
    root = quick_path / "cache"

    def evict() -> None:
        with open_cache(root, now=lambda: NOW) as cache:
            sweeper_of(cache).evict(GOES.id)

    for step in count(1):
        fill(root)
        # A hard-linked checkout, which must come through whatever happens.
        linked = quick_path / "linked"
        linked.unlink(missing_ok=True)
        os.link(root / "trees" / GOES.id / "closed" / "b", linked)
        code = run_until(step, evict)
        assert code in (0, -signal.SIGKILL)
        with open_cache(root, now=lambda: NOW) as cache:
            assert_consistent(cache)
            assert GOES_TOO.id in set(cache.trees.iterate())
            assert (GOES.id in set(cache.trees.iterate())) == (cache.complete(GOES.id) is not None)
        assert linked.read_bytes() == b"b" * 9000
        if code == 0:
            break
    assert step > 25
