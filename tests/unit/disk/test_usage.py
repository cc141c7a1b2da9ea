from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.disk.usage import Accountant, take_census
from snapd.model.eviction import blob_key
from snapd.model.ids import digest_of
from tests.caching import ref_of, store, store_all
from tests.samples import sample

MADE = sample({"a": b"1", "d/b": b"1", "d/c": b"x" * 9000, "e": b""}, modes={"d/c": 0o755})


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", fsync="off", now=lambda: 7.0) as opened:
        yield opened


def test_a_census_knows_blocks_and_links(cache: Cache, tmp_path: Path) -> None:
    store_all(cache, MADE)
    cache.publish(MADE.manifest, store="", now=7.0)
    store(cache, ref_of(b"alone"), b"alone")
    path = cache.blobs.path(digest_of(b"1"), 0o644)
    os.link(path, tmp_path / "elsewhere")
    (path.parent / "stray").write_bytes(b"not a blob")
    census = take_census(cache.root)
    assert list(census.keys) == sorted(census.keys)
    found = dict(
        zip(census.keys, zip(census.allocated_bytes, census.links, strict=True), strict=True)
    )
    assert found == {
        blob_key(digest_of(b"1"), 0o644): (4096, 3),
        blob_key(digest_of(b"x" * 9000), 0o755): (12288, 1),
        blob_key(digest_of(b""), 0o644): (0, 1),
        blob_key(digest_of(b"alone"), 0o644): (4096, 0),
    }
    (alone,) = census.orphans()
    assert abs(census.written_at[alone] - path.stat().st_mtime) < 60


def test_everything_is_counted_in_blocks_and_once(cache: Cache) -> None:
    """What `du` says of the directory, which counts each file once, too."""
    store_all(cache, MADE)
    cache.publish(MADE.manifest, store="", now=7.0)
    (cache.root / "quarantine" / "wrong").write_bytes(b"x" * 5000)
    (cache.staging.path / "half").write_bytes(b"x" * 20000)
    os.link(cache.blobs.path(digest_of(b"1"), 0o644), cache.staging.path / "half-built")
    accountant = Accountant(cache.root)
    usage = accountant.count(take_census(cache.root))
    assert usage.blob_bytes == 4096 + 12288
    assert usage.tree_bytes == 2 * 4096
    assert (usage.linked_bytes, usage.loose_bytes) == (usage.blob_bytes, 0)
    assert usage.quarantine_bytes == du(cache.root / "quarantine")
    assert usage.staging_bytes >= 20480
    directories = [cache.root, *(cache.root / name for name in ("blobs", "trees"))]
    uncounted = sum(
        path.lstat().st_blocks * 512 for path in [*directories, *(cache.root / "blobs").iterdir()]
    )
    assert usage.total_bytes + uncounted == du(cache.root)
    manifest = cache.root / "manifests" / MADE.id
    assert accountant.own_bytes(MADE.id) == 8192 + manifest.stat().st_blocks * 512
    cache.trees.remove(MADE.id)
    assert accountant.count(take_census(cache.root)).tree_bytes == 0


def du(root: Path) -> int:
    found = {path.lstat().st_ino: path.lstat().st_blocks * 512 for path in [root, *root.rglob("*")]}
    return sum(found.values())


def test_an_empty_place_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    assert take_census(tmp_path).total_bytes == 0
