from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snapd.disk import cache as cache_module
from snapd.disk.blobs import Blobs
from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import ActionFailed, CacheUnusable
from snapd.model.ids import Digest
from tests.caching import assert_sound, assert_tree, ref_of, staged, store, store_all
from tests.ordinary_user import as_ordinary_user, nobodys_directory
from tests.samples import sample

ONE = sample({"a/b": b"1", "a/c": b"2", "d": b"1"}, modes={"": 0o555})
TWO = sample({"a/b": b"1", "new": b"3"})
EARLIER = 1_000_000_000 * 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cache"


@pytest.fixture
def cache(root: Path) -> Iterator[Cache]:
    with open_cache(root, now=lambda: 7.0) as opened:
        yield opened


@contextmanager
def dying(root: Path) -> Iterator[Cache]:
    """Open the cache in a process that seems to have been killed at the end of the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "_leave", lambda _: None)
        with open_cache(root, now=lambda: 7.0) as cache:
            yield cache


def lose_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine seem to have been started anew."""
    monkeypatch.setattr(cache_module, "boot_id", lambda: "another boot")


def test_the_layout_is_made_with_the_modes_that_let_others_read_trees_only(
    cache: Cache, root: Path
) -> None:
    def modes_of(*names: str) -> set[int]:
        return {(root / name).stat().st_mode & 0o7777 for name in names}

    assert modes_of("", "blobs", "blobs/00", "blobs/ff", "manifests", "trees") == {0o755}
    assert modes_of("staging", "quarantine") == {0o700}
    assert len(list((root / "blobs").iterdir())) == 256
    assert (root / "version").read_text() == "1\n"


def test_a_published_snapshot_is_complete(cache: Cache, root: Path) -> None:
    store_all(cache, ONE)
    assert cache.complete(ONE.id) is None
    tree = cache.publish(ONE.manifest, store="s3://b/p", now=9.0)
    assert tree == root / "trees" / ONE.id
    assert_tree(tree, ONE.manifest)
    found = cache.complete(ONE.id)
    assert found is not None
    assert (found.store, found.tree, found.files, found.objects) == ("s3://b/p", str(tree), 3, 2)
    assert (found.size_bytes, found.completed_at, found.used_at) == (2, 9.0, 9.0)
    assert cache.index.snapshots() == [found]
    assert cache.publish(ONE.manifest, store="s3://b/p", now=10.0) == tree
    assert_sound(root)


def test_a_clean_stop_leaves_nothing_and_all_is_there_again(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        store_all(cache, ONE)
        cache.publish(ONE.manifest, store="", now=9.0)
        before = cache.complete(ONE.id)
    assert list((root / "staging").iterdir()) == []
    with open_cache(root, now=lambda: 7.0) as cache:
        assert cache.complete(ONE.id) == before


def test_publishing_without_an_object_completes_nothing(cache: Cache, root: Path) -> None:
    with pytest.raises(ActionFailed):
        cache.publish(ONE.manifest, store="", now=9.0)
    assert cache.complete(ONE.id) is None
    assert list((root / "trees").iterdir()) == []
    assert staged(root) == []
    store_all(cache, ONE)
    cache.publish(ONE.manifest, store="", now=9.0)
    assert_sound(root)


def test_two_snapshots_share_their_objects(cache: Cache, root: Path) -> None:
    for each in (ONE, TWO):
        store_all(cache, each)
        cache.publish(each.manifest, store="", now=9.0)
    trees = root / "trees"
    assert os.path.samefile(trees / ONE.id / "a/b", trees / TWO.id / "a/b")
    assert len(list(cache.blobs.iterate())) == 3


def test_many_threads_may_publish_the_same_and_others(cache: Cache, root: Path) -> None:
    samples = [sample({f"f{n}": b"%d" % n, "same": b"same"}) for n in range(8)]

    def publish(n: int) -> Path:
        each = samples[n % 8]
        store_all(cache, each)
        return cache.publish(each.manifest, store="", now=9.0)

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(publish, range(24)))) == 8
    assert_sound(root)
    assert staged(root) == []


def test_two_openings_at_once_do_not_sweep_each_other(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as first:
        large = first.blobs.writer(ref_of(b"x" * 3_000_000)._replace(size_bytes=0))
        large.start()
        large.write(b"x" * 3_000_000)
        (first.staging.path / "work").write_text("half")
        with open_cache(root, now=lambda: 7.0) as second:
            assert (first.staging.path / "work").exists()
            store_all(second, ONE)
            second.publish(ONE.manifest, store="", now=9.0)
        large.finish()
        assert first.complete(ONE.id) is not None
    assert_sound(root)
    assert list((root / "staging").iterdir()) == []


def test_a_row_that_got_lost_is_written_anew(cache: Cache) -> None:
    store_all(cache, ONE)
    cache.publish(ONE.manifest, store="s3://b/p", now=9.0)
    cache.index.forget(ONE.id)
    found = cache.complete(ONE.id)
    assert found is not None
    assert (found.files, found.objects, found.size_bytes, found.used_at) == (3, 2, 2, 7.0)
    assert cache.index.snapshots() == [found]


@pytest.mark.parametrize("damage", ["lost", "garbage"])
def test_an_index_that_got_lost_is_rebuilt_at_opening(damage: str, root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        for each in (ONE, TWO):
            store_all(cache, each)
            cache.publish(each.manifest, store="", now=9.0)
    if damage == "lost":
        (root / "index.sqlite3").unlink()
    else:
        (root / "index.sqlite3").write_bytes(b"garbage" * 1000)
    with open_cache(root, now=lambda: 7.0) as cache:
        assert {view.snapshot_id for view in cache.index.snapshots()} == {ONE.id, TWO.id}


def test_a_row_without_a_tree_is_no_snapshot(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        store_all(cache, ONE)
        cache.publish(ONE.manifest, store="", now=9.0)
        cache.trees.remove(ONE.id)
        assert cache.complete(ONE.id) is None
    with open_cache(root, now=lambda: 7.0) as cache:
        assert cache.index.snapshots() == []


def test_a_tree_without_a_manifest_is_removed_at_opening(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        store_all(cache, ONE)
        cache.publish(ONE.manifest, store="", now=9.0)
        cache.manifests.remove(ONE.id)
    (root / "trees" / "not ours").mkdir()
    with open_cache(root, now=lambda: 7.0) as cache:
        assert list(cache.trees.iterate()) == []
        assert cache.index.snapshots() == []
    assert [path.name for path in (root / "trees").iterdir()] == ["not ours"]


def test_a_root_that_a_crash_left_without_its_mode_is_put_right(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0) as cache:
        store_all(cache, ONE)
        tree = cache.publish(ONE.manifest, store="", now=9.0)
    tree.chmod(0o700)
    with open_cache(root, now=lambda: 7.0):
        assert tree.stat().st_mode & 0o7777 == 0o555


def test_after_a_kill_the_staging_is_swept_and_nothing_is_hashed_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dying(root) as cache:
        store_all(cache, ONE)
        (cache.staging.path / "half").mkdir(mode=0o555)
    assert len(list((root / "staging").iterdir())) == 1
    monkeypatch.setattr("snapd.disk.blobs.Blobs.prove", None)
    with open_cache(root, now=lambda: 7.0) as cache:
        assert [path.name for path in (root / "staging").iterdir()] == [cache.staging.path.name]
        assert len(list(cache.blobs.iterate())) == 2


def test_after_a_power_loss_what_is_young_is_verified(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dying(root) as cache:
        for each in (ONE, TWO):
            store_all(cache, each)
            cache.publish(each.manifest, store="s3://b/p", now=9.0)
        store(cache, ref_of(b"unpublished"), b"unpublished")
        cache.blobs.path(ref_of(b"3").digest, 0o644).write_bytes(b"")  # only TWO has it
        cache.blobs.path(ref_of(b"unpublished").digest, 0o644).write_bytes(b"\0" * 11)
    lose_power(monkeypatch)
    with open_cache(root, now=lambda: 7.0) as cache:
        assert not cache.blobs.has(ref_of(b"3").digest, 0o644)
        assert not cache.blobs.has(ref_of(b"unpublished").digest, 0o644)
        assert cache.complete(TWO.id) is None
        assert [view.snapshot_id for view in cache.index.snapshots()] == [ONE.id]
        assert len(list(cache.quarantine.path.glob("*.json"))) == 2
        assert_sound(root)
        store_all(cache, TWO)
        cache.publish(TWO.manifest, store="", now=9.0)
        assert_sound(root)


def test_after_a_power_loss_what_is_older_than_the_last_barrier_is_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dying(root) as cache:
        old, young = ref_of(b"old"), ref_of(b"young")
        for ref, body in ((old, b"old"), (young, b"young")):
            store(cache, ref, body)
        os.utime(cache.blobs.path(old.digest, 0o644), ns=(EARLIER, EARLIER))
        cache.barrier()
    lose_power(monkeypatch)
    looked_at = []
    real = Blobs.prove

    def prove(blobs: Blobs, digest: Digest, *arguments: Any) -> Any:
        looked_at.append(digest)
        return real(blobs, digest, *arguments)

    monkeypatch.setattr(Blobs, "prove", prove)
    with open_cache(root, now=lambda: 7.0):
        assert looked_at == [young.digest]


def test_without_barriers_all_of_the_run_is_young(root: Path) -> None:
    with open_cache(root, fsync="off", now=lambda: 7.0) as cache:
        marker = cache.staging.path / "marker"
        opened_at = marker.stat().st_mtime_ns
        store_all(cache, ONE)
        cache.publish(ONE.manifest, store="", now=9.0)
        assert marker.stat().st_mtime_ns == opened_at
        while cache.staging.clock_ns() <= opened_at:
            """The clock that stamps files moves on in steps."""
        cache.sync()
        assert marker.stat().st_mtime_ns > opened_at


def test_a_crash_while_tidying_up_is_followed_by_the_same_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dying(root) as cache:
        store_all(cache, ONE)
        cache.blobs.path(ref_of(b"1").digest, 0o644).write_bytes(b"")
    lose_power(monkeypatch)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("snapd.disk.blobs.Blobs.quarantine", die)
        with pytest.raises(KeyboardInterrupt), open_cache(root, now=lambda: 7.0):
            pass
    with open_cache(root, now=lambda: 7.0) as cache:
        assert not cache.blobs.has(ref_of(b"1").digest, 0o644)
        assert len(list((root / "staging").iterdir())) == 1


def test_a_newer_layout_is_refused(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0):
        pass
    (root / "version").write_text("2\n")
    with pytest.raises(CacheUnusable, match="version 2"), open_cache(root, now=lambda: 7.0):
        pass


def test_somebody_elses_directory_is_refused(root: Path) -> None:
    (root / "trees" / "oak").mkdir(parents=True)
    with pytest.raises(CacheUnusable, match="no version file"), open_cache(root, now=lambda: 7.0):
        pass
    assert [path.name for path in (root / "trees").iterdir()] == ["oak"]


def test_a_file_in_the_way_is_refused(root: Path) -> None:
    root.parent.mkdir()
    root.write_text("a file")
    with pytest.raises(CacheUnusable, match=str(root)), open_cache(root, now=lambda: 7.0):
        pass


def test_a_directory_that_cannot_be_written_is_refused() -> None:
    with nobodys_directory() as directory:
        for existing in (False, True):
            root = directory / "cache"

            def use(root: Path = root) -> None:
                refused = pytest.raises(CacheUnusable, match=str(root))
                with refused, open_cache(root, now=lambda: 7.0):
                    pass

            directory.chmod(0o755)
            if existing:
                with open_cache(root, now=lambda: 7.0):
                    pass
            os.chown(directory, os.geteuid(), os.getegid())
            directory.chmod(0o555)
            as_ordinary_user(use)


def test_a_layout_that_was_half_made_is_completed(root: Path) -> None:
    with open_cache(root, now=lambda: 7.0):
        pass
    shutil.rmtree(root / "blobs" / "ff")
    shutil.rmtree(root / "blobs" / "7f")
    with open_cache(root, now=lambda: 7.0) as cache:
        store_all(cache, ONE)
    assert len(list((root / "blobs").iterdir())) == 256


def test_free_space_is_told(cache: Cache) -> None:
    assert cache.free_bytes() <= cache.space().total_bytes


def test_a_lock_keeps_others_from_the_same_snapshot(cache: Cache) -> None:
    with cache.snapshot_lock(ONE.id):
        assert not cache.snapshot_lock(ONE.id).try_acquire()


def test_rows_that_are_lost_while_the_cache_is_open_are_written_anew(cache: Cache) -> None:
    for each in (ONE, TWO):
        store_all(cache, each)
        cache.publish(each.manifest, store="file:///s", now=9.0)
    for each in (ONE, TWO):
        cache.index.forget(each.id)
    assert cache.snapshots() == []
    cache.index.lost_rows = True
    assert {view.snapshot_id for view in cache.snapshots()} == {ONE.id, TWO.id}
    assert not cache.index.lost_rows
