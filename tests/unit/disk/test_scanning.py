from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.disk.records import Facts
from snapd.disk.scanning import OBJECT_COST_BYTES, Scan
from snapd.model.eviction import blob_key
from snapd.model.settings import MIB
from tests.caching import ref_of, store
from tests.unit.disk.test_trust import tick

BODIES = [b"%d" % n * 1000 for n in range(40)]
LARGE = os.urandom(700_000)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        for body in BODIES:
            store(opened, ref_of(body), body)
        tick(opened)
        yield opened


def scan_of(cache: Cache, position: str = "", began_at: float = 1.0) -> Scan:
    return Scan(cache.blobs, cache.records, position=position, began_at=began_at)


def test_one_step_can_hash_everything_and_records_it(cache: Cache) -> None:
    step = scan_of(cache).step(MIB, 99.0)
    assert step.done
    assert (step.objects, step.size_bytes) == (40, sum(map(len, BODIES)))
    assert step.suspects == []
    cache.records._notes.clear()
    keys = [blob_key(ref_of(body).digest, 0o644) for body in BODIES]
    found = cache.records.find(keys)
    for key, body in zip(keys, BODIES, strict=True):
        facts = cache.blobs.facts(ref_of(body).digest, 0o644)
        assert found[key] == (*(facts or Facts(0, 0, 0, 0)), 99)


def test_small_steps_end_where_one_large_one_does_and_large_objects_are_cut(cache: Cache) -> None:
    store(cache, ref_of(LARGE), LARGE)
    scan, objects, size_bytes, steps = scan_of(cache), 0, 0, 0
    progress = [scan.progress]
    while True:
        step = scan.step(1000, 9.0)
        assert step.cost_bytes <= OBJECT_COST_BYTES + 256 * 1024
        objects += step.objects
        size_bytes += step.size_bytes
        steps += 1
        progress.append(scan.progress)
        if step.done:
            break
    assert (objects, size_bytes) == (41, sum(map(len, BODIES)) + len(LARGE))
    assert steps > 41
    assert progress == sorted(progress)


def test_another_scan_goes_on_from_a_position(cache: Cache) -> None:
    first = scan_of(cache)
    done = 0
    while done < 15:
        done += first.step(1, 9.0).objects
    first.close()
    second = scan_of(cache, first.position)
    assert second.progress == first.progress > 0
    assert second.step(MIB, 9.0).objects == 40 - done


def test_a_wrong_object_is_a_suspect_and_gets_no_record(cache: Cache) -> None:
    ref = ref_of(BODIES[3])
    path = cache.blobs.path(ref.digest, ref.mode)
    path.write_bytes(b"x" * len(BODIES[3]))
    cache.records.flush()
    before = cache.records.find([blob_key(ref.digest, ref.mode)])
    step = scan_of(cache).step(MIB, 99.0)
    assert step.suspects == [(ref.digest, 0o644)]
    assert cache.records.find([blob_key(ref.digest, ref.mode)]) == before
    assert path.exists()


@pytest.mark.parametrize("body", [b"", b"x" * (256 * 1024), b"x" * (512 * 1024 + 1)])
def test_objects_of_any_length_are_hashed_whole(cache: Cache, body: bytes) -> None:
    store(cache, ref_of(body), body)
    step = scan_of(cache).step(16 * MIB, 9.0)
    assert (step.objects, step.suspects) == (41, [])


def test_names_that_are_no_objects_are_passed_over(cache: Cache) -> None:
    (cache.root / "blobs" / "00" / "README").write_bytes(b"no object")
    assert scan_of(cache).step(MIB, 9.0).suspects == []


def test_rows_of_objects_that_are_gone_are_forgotten(cache: Cache) -> None:
    cache.records.flush()
    gone, kept = (ref_of(body).digest for body in BODIES[:2])
    cache.blobs.path(gone, 0o644).unlink()
    assert scan_of(cache, began_at=50.0).step(MIB, 60.0).objects == 39
    found = cache.records.find([blob_key(gone, 0o644), blob_key(kept, 0o644)])
    assert set(found) == {blob_key(kept, 0o644)}


def test_it_leaves_no_descriptor_open(cache: Cache) -> None:
    before = len(os.listdir("/proc/self/fd"))
    scan = scan_of(cache)
    scan.step(1, 9.0)
    scan.close()
    scan_of(cache).step(MIB, 9.0)
    assert len(os.listdir("/proc/self/fd")) == before
