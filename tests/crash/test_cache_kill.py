"""SIGKILL of whoever uses the cache at every step that changes it, and what is found afterwards."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from snapd.disk import cache as cache_module
from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import DigestMismatch
from tests.caching import assert_sound, assert_tree, empty, ref_of, staged, store, store_all
from tests.crash.steps import run_until
from tests.samples import sample

LARGE = os.urandom(300_000)
LIED = os.urandom(1_300_000)
ONE = sample(
    {"a/b": b"1", "a/closed/c": b"", "d": b"1", "run": b"#!", "large": LARGE, "lied": LIED},
    modes={"": 0o555, "a/closed/": 0o000, "run": 0o755, "d": 0o600},
)
TWO = sample({"a/b": b"1", "new": b"2"})
SMALL = sample({"a/b": b"1", "c": b"2"}, modes={"": 0o555})


def pull(root: Path) -> None:
    """Do what a pull does to the cache, with every kind of writer, and leave it in order."""
    with open_cache(root, now=lambda: 7.0) as cache:
        put_large(cache)
        store(cache, ref_of(LIED)._replace(size_bytes=3), LIED)
        store(cache, ref_of(b"1"), b"1")
        if not cache.blobs.has(ref_of(b"1").digest, 0o600):
            cache.blobs.derive(ref_of(b"1").digest, from_mode=0o644, to_mode=0o600)
        with pytest.raises(DigestMismatch):
            store(cache, ref_of(b"#!", 0o755), b"wrong")
        store_all(cache, ONE)
        cache.publish(ONE.manifest, store="s3://b/p", now=9.0)


def put_large(cache: Cache) -> None:
    writer = cache.blobs.large_writer(ref_of(LARGE), len(LARGE))
    for offset in (200_000, 0, 100_000):
        sink = writer.part(offset, 100_000)
        sink.start()
        sink.write(LARGE[offset : offset + 100_000])
        sink.finish()
    writer.finish()


def assert_in_order(cache: Cache) -> None:
    """Check what the first opening after a crash must have brought about."""
    assert_sound(cache.root)
    assert staged(cache.root) == []
    assert [path.name for path in (cache.root / "staging").iterdir()] == [cache.staging.path.name]
    trees = {path.name for path in (cache.root / "trees").iterdir()}
    rows = {view.snapshot_id for view in cache.index.snapshots()}
    assert rows == trees
    for each in (ONE, TWO, SMALL):
        if cache.complete(each.id) is not None:
            assert_tree(cache.trees.path(each.id), each.manifest)


def kill_everywhere(root: Path, before: Callable[[], object], work: Callable[[], object]) -> int:
    """Kill `work` at each step; after each, everything must be sound and a pull must succeed."""
    for step in count(1):
        before()
        code = run_until(step, work)
        assert code in (0, -signal.SIGKILL)
        assert_sound(root, just_crashed=True)
        with open_cache(root, now=lambda: 7.0) as cache:
            assert_in_order(cache)
            for each in (SMALL, TWO):
                store_all(cache, each)
                cache.publish(each.manifest, store="", now=9.0)
            assert_in_order(cache)
        assert list((root / "staging").iterdir()) == []
        empty(root)
        if code == 0:
            return step
    raise AssertionError("unreachable")


@pytest.fixture
def root(quick_path: Path) -> Path:
    with open_cache(quick_path / "cache", now=lambda: 7.0) as cache:
        return cache.root


def test_a_pull_killed_anywhere_leaves_nothing_half_done(root: Path) -> None:
    assert kill_everywhere(root, lambda: None, lambda: pull(root)) > 70


def test_a_pull_without_unnamed_files_killed_anywhere(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapd.disk.fsops.can_link_unnamed", lambda *_: False)
    assert kill_everywhere(root, lambda: None, lambda: pull(root)) > 70


def test_a_removal_killed_anywhere_leaves_a_whole_tree_or_none(root: Path) -> None:
    def publish() -> None:
        with open_cache(root, now=lambda: 7.0) as cache:
            store_all(cache, ONE)
            cache.publish(ONE.manifest, store="", now=9.0)

    def remove() -> None:
        with open_cache(root, now=lambda: 7.0) as cache:
            cache.trees.remove(ONE.id)
            cache.index.forget(ONE.id)

    assert kill_everywhere(root, publish, remove) > 30


def test_the_tidying_after_a_power_loss_killed_anywhere_is_done_by_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_power() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache_module, "_leave", lambda _: None)
            patch.setattr(cache_module, "boot_id", lambda: "an earlier boot")
            with open_cache(root, now=lambda: 7.0) as cache:
                for each in (SMALL, TWO):
                    store_all(cache, each)
                    cache.publish(each.manifest, store="", now=9.0)
                store(cache, ref_of(b"3"), b"3")

    def damage() -> None:
        """Damage an object that one tree has, and one that none has."""
        for body in (b"2", b"3"):
            (path,) = root.glob(f"blobs/*/{ref_of(body).digest}.644")
            path.write_bytes(b"")

    def tidy() -> None:
        with open_cache(root, now=lambda: 7.0):
            pass

    for step in count(1):
        lose_power()
        damage()
        code = run_until(step, tidy)
        assert code in (0, -signal.SIGKILL)
        with open_cache(root, now=lambda: 7.0) as cache:
            assert_in_order(cache)
            assert not cache.blobs.has(ref_of(b"3").digest, 0o644)
            assert cache.complete(SMALL.id) is None
        empty(root)
        if code == 0:
            break
    assert step > 40


def test_a_first_opening_killed_on_the_way_is_no_obstacle(quick_path: Path) -> None:
    for step in [*range(1, 25), *range(25, 3000, 83)]:
        root = quick_path / str(step)

        def first(root: Path = root) -> None:
            with open_cache(root, now=lambda: 7.0):
                pass

        code = run_until(step, first)
        assert code in (0, -signal.SIGKILL)
        with open_cache(root, now=lambda: 7.0) as cache:
            assert_in_order(cache)
            store_all(cache, SMALL)
            assert_tree(cache.publish(SMALL.manifest, store="", now=9.0), SMALL.manifest)
        shutil.rmtree(root)
        if code == 0:
            assert step > 300
            return
    raise AssertionError("it never ended")
