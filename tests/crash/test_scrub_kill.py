"""SIGKILL at every step that finds damage and repairs it, and what the next opening makes of it."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path

from snapd.disk.cache import Cache, open_cache
from snapd.disk.scanning import Scan
from snapd.model.settings import MIB
from tests.caching import assert_sound, assert_tree, empty, ref_of, staged, store, store_all
from tests.crash.steps import run_until
from tests.samples import sample

ONE = sample(
    {"closed/deep/a": b"shared", "b": b"shared", "c": b"own"},
    modes={"": 0o555, "closed/": 0o511, "closed/deep/": 0o000},
)
TWO = sample({"x": b"shared", "y": b"other"})
SHARED = ref_of(b"shared")
BLOB = (SHARED.digest, 0o644)


def damaged_cache(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        for each in (ONE, TWO):
            store_all(cache, each)
            cache.publish(each.manifest, store="", now=9.0)
        cache.blobs.path(*BLOB).write_bytes(b"SHARED")


def find(cache: Cache) -> None:
    """Do what the scrub does until it knows what is damaged."""
    scan = Scan(cache.blobs, cache.records, position="", began_at=1.0)
    step = scan.step(MIB, 7.0)
    assert step.done
    for suspect in step.suspects:
        cache.trust.prove(*suspect)


def scrub(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        find(cache)
        for digest, mode in cache.repairs.pending():
            if not cache.blobs.has(digest, mode):
                store(cache, SHARED, b"shared")
        cache.mender.mend()


def is_undetected(cache: Cache) -> bool:
    """Tell whether the damage is still there and nobody knows of it."""
    path = cache.blobs.path(*BLOB)
    return path.exists() and path.read_bytes() == b"SHARED" and not cache.repairs.pending()


def assert_honest(cache: Cache) -> None:
    """Check that what counts as complete is so, as far as the damage was found."""
    assert staged(cache.root) == []
    if is_undetected(cache):
        return
    for each in (ONE, TWO):
        if cache.complete(each.id) is not None:
            assert_tree(cache.trees.path(each.id), each.manifest)
    listed = {view.snapshot_id for view in cache.snapshots()}
    assert listed & {ONE.id, TWO.id} == {
        each.id for each in (ONE, TWO) if cache.complete(each.id) is not None
    }


def test_a_scrub_killed_anywhere_is_finished_by_the_next(quick_path: Path) -> None:
    root = quick_path / "cache"
    for step in count(1):
        damaged_cache(root)
        code = run_until(step, lambda: scrub(root))
        assert code in (0, -signal.SIGKILL)
        with open_cache(root, now=lambda: 7.0) as cache:
            assert_honest(cache)
        scrub(root)
        assert_sound(root)
        with open_cache(root, now=lambda: 7.0) as cache:
            assert cache.repairs.pending() == []
            # A torn marker tells of a lost machine, and trees as young as these are then laid out
            # anew, or go if that can't be.
            trees = {each.id for each in (ONE, TWO) if cache.trees.has(each.id)}
            assert {view.snapshot_id for view in cache.snapshots()} == trees
        if code == 0:
            break
        empty(root)
    assert step > 25


def test_a_pull_that_finds_damage_killed_anywhere_is_finished_by_the_next(quick_path: Path) -> None:
    root = quick_path / "cache"
    three = sample({"z": b"shared", "new": b"new"})

    def pull(root: Path) -> None:
        with open_cache(root, now=lambda: 7.0) as cache:
            cache.trust.check(three.manifest, three.manifest.objects())
            store_all(cache, three)
            cache.publish(three.manifest, store="", now=9.0)

    for step in count(1):
        damaged_cache(root)
        code = run_until(step, lambda: pull(root))
        assert code in (0, -signal.SIGKILL)
        with open_cache(root, now=lambda: 7.0) as cache:
            assert_honest(cache)
            if cache.complete(three.id) is not None:
                assert_tree(cache.trees.path(three.id), three.manifest)
        pull(root)
        assert_sound(root)
        with open_cache(root, now=lambda: 7.0) as cache:
            assert cache.complete(three.id) is not None
        if code == 0:
            break
        empty(root)
    assert step > 25
