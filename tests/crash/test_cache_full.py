"""A disk that is really full while the cache is written to: a tmpfs of 4 MiB."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import DigestMismatch, NoSpace
from snapd.model.settings import MIB
from tests.caching import assert_sound, assert_tree, ref_of, staged, store, store_all
from tests.samples import sample

MANY = sample({f"d{n}/f{n}": b"same" for n in range(600)})


def mounted(place: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs; a place where that is not possible fails the test, loudly."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"this test must be able to mount a tmpfs: {done.stderr}"
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "size=4m")


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "size=64m,nr_inodes=1000")


def fill(disk: Path) -> Path:
    """Take all space that is left."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as target:
        try:
            while target.write(bytes(4096)):
                pass
        except OSError:
            pass
    return ballast


def names(cache: Cache) -> list[Path]:
    """List all files but the index, which SQLite manages."""
    return sorted(path for path in cache.root.rglob("*") if "index.sqlite3" not in path.name)


def test_a_disk_that_fills_while_an_object_is_written(small_disk: Path) -> None:
    with open_cache(small_disk / "cache", now=lambda: 7.0) as cache:
        before, free_before = names(cache), cache.free_bytes()
        body = os.urandom(5 * MIB)
        whole = cache.blobs.writer(ref_of(body))
        whole.start()
        whole.write(body)
        with pytest.raises(NoSpace, match=str(cache.root)):
            whole.finish()
        spilling = cache.blobs.writer(ref_of(body)._replace(size_bytes=0))
        spilling.start()
        with pytest.raises(NoSpace, match=ref_of(body).digest):
            for offset in range(0, len(body), 65536):
                spilling.write(body[offset : offset + 65536])
        large = cache.blobs.large_writer(ref_of(body), len(body))
        sink = large.part(0, len(body))
        sink.start()
        with pytest.raises(NoSpace, match=str(cache.root)):
            sink.write(body)
        large.discard()
        assert names(cache) == before
        assert cache.free_bytes() == free_before
        store(cache, ref_of(b"small"), b"small")
        assert_sound(cache.root)


def test_a_full_disk_keeps_no_object_and_resumes(small_disk: Path) -> None:
    with open_cache(small_disk / "cache", now=lambda: 7.0) as cache:
        ballast = fill(small_disk)
        before = names(cache)
        with pytest.raises(NoSpace):
            store_all(cache, MANY)
        assert names(cache) == before
        ballast.unlink()
        store_all(cache, MANY)
        ballast = fill(small_disk)
        with pytest.raises(NoSpace):
            cache.publish(MANY.manifest, store="", now=9.0)
        assert cache.complete(MANY.id) is None
        assert staged(cache.root) == []
        assert_sound(cache.root)
        ballast.unlink()
        assert_tree(cache.publish(MANY.manifest, store="", now=9.0), MANY.manifest)
        assert cache.complete(MANY.id) is not None


def test_a_disk_without_inodes_builds_no_half_tree_and_resumes(few_inodes: Path) -> None:
    with open_cache(few_inodes / "cache", now=lambda: 7.0) as cache:
        store_all(cache, MANY)
        with pytest.raises(NoSpace, match=str(cache.trees.root)):
            cache.publish(MANY.manifest, store="", now=9.0)
        assert list((cache.root / "trees").iterdir()) == []
        assert cache.complete(MANY.id) is None
        assert [path.name for path in cache.staging.path.iterdir()] == ["marker"]
        subprocess.run(["mount", "-o", "remount,nr_inodes=9000", str(few_inodes)], check=True)
        assert_tree(cache.publish(MANY.manifest, store="", now=9.0), MANY.manifest)
        assert_sound(cache.root)


def test_a_full_disk_can_be_opened_or_says_no_space(small_disk: Path) -> None:
    with open_cache(small_disk / "cache", now=lambda: 7.0) as cache:
        store_all(cache, MANY)
    ballast = fill(small_disk)
    with pytest.raises(NoSpace), open_cache(small_disk / "cache", now=lambda: 7.0):
        pass
    ballast.unlink()
    with open_cache(small_disk / "cache", now=lambda: 7.0) as cache:
        assert_tree(cache.publish(MANY.manifest, store="", now=9.0), MANY.manifest)
    assert list((small_disk / "cache" / "staging").iterdir()) == []


def test_wrong_bytes_on_a_full_disk_are_reported_as_wrong(small_disk: Path) -> None:
    with open_cache(small_disk / "cache", now=lambda: 7.0) as cache:
        fill(small_disk)
        before = names(cache)
        with pytest.raises(DigestMismatch):
            store(cache, ref_of(b"right"), b"wrong" * 10_000)
        assert names(cache) == before
