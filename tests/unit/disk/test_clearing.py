from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.disk.clearing import clear
from snapd.model.eviction import blob_key, object_of
from snapd.model.plan import ObjectRef
from tests.caching import ref_of, store


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", fsync="off", now=lambda: 7.0) as opened:
        yield opened


def key(ref: ObjectRef) -> int:
    return blob_key(ref.digest, ref.mode)


def keys(*refs: ObjectRef) -> array[int]:
    return array("Q", sorted(map(key, refs)))


def test_what_has_no_other_link_goes(cache: Cache, tmp_path: Path) -> None:
    alone, linked, unnamed = (ref_of(body) for body in (b"alone", b"linked", b"unnamed"))
    for body in (b"alone", b"linked", b"unnamed"):
        store(cache, ref_of(body), body)
    os.link(cache.blobs.path(linked.digest, linked.mode), tmp_path / "elsewhere")
    stray = cache.blobs.path(alone.digest, alone.mode).parent / "stray"
    stray.write_bytes(b"")
    cleared = clear(cache.blobs, cache.reliance, keys(alone, linked, ref_of(b"absent")))
    assert (cleared.blobs, cleared.freed_bytes, cleared.in_use) == (1, 4096, False)
    found = [cache.blobs.has(ref.digest, ref.mode) for ref in (alone, linked, unnamed)]
    assert found == [False, True, True]
    assert stray.exists()


def test_what_a_pull_relies_on_stays_under_every_mode(cache: Cache) -> None:
    wanted, other = ref_of(b"wanted", 0o755), ref_of(b"other")
    store(cache, wanted, b"wanted")
    store(cache, other, b"other")
    objects = array("Q", [object_of(key(wanted))])
    cache.reliance.begin(objects)
    assert clear(cache.blobs, cache.reliance, keys(wanted, other)).blobs == 1
    assert cache.blobs.has(wanted.digest, wanted.mode)
    cache.reliance.end(objects)
    assert clear(cache.blobs, cache.reliance, keys(wanted)).blobs == 1


def test_another_process_that_relies_on_blobs_stops_it(cache: Cache) -> None:
    ref = ref_of(b"x")
    store(cache, ref, b"x")
    with open_cache(cache.root, fsync="off", now=lambda: 7.0) as other:
        objects = array("Q", [1])
        other.reliance.begin(objects)
        cleared = clear(cache.blobs, cache.reliance, keys(ref))
        assert (cleared.blobs, cleared.in_use) == (0, True)
        other.reliance.end(objects)
        assert clear(cache.blobs, cache.reliance, keys(ref)).blobs == 1
