from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from tests.caching import ref_of, store_all
from tests.samples import sample

ONE = sample({"a": b"shared", "b": b"1"})
TWO = sample({"c": b"shared", "F 644 x": b"2"})
SHARED = (ref_of(b"shared").digest, 0o644)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        for each in (ONE, TWO):
            store_all(opened, each)
            opened.publish(each.manifest, store="", now=9.0)
        yield opened


def test_what_waits_for_repair_is_known_to_every_opening(cache: Cache) -> None:
    assert cache.repairs.pending() == []
    cache.repairs.add(*SHARED)
    cache.repairs.add(*SHARED)
    with open_cache(cache.root, now=lambda: 7.0) as other:
        assert other.repairs.pending() == [SHARED]
        assert other.snapshots() == []
    cache.repairs.done(*SHARED)
    cache.repairs.done(*SHARED)
    assert cache.repairs.pending() == []
    assert len(cache.snapshots()) == 2


def test_the_holders_of_an_object_are_found_by_digest_and_mode(cache: Cache) -> None:
    repairs = cache.repairs
    assert set(repairs.holders(SHARED)) == {ONE.id, TWO.id}
    assert repairs.holders((SHARED[0], 0o600)) == []
    assert repairs.holders((ref_of(b"1").digest, 0o644)) == [ONE.id]


def test_only_the_snapshots_that_hold_it_are_concerned(cache: Cache) -> None:
    cache.repairs.add(ref_of(b"1").digest, 0o644)
    assert cache.repairs.concern(ONE.id)
    assert not cache.repairs.concern(TWO.id)
    assert [view.snapshot_id for view in cache.snapshots()] == [TWO.id]


def test_names_that_mean_nothing_are_passed_over(cache: Cache) -> None:
    (cache.repairs.root / "README").write_bytes(b"")
    assert cache.repairs.pending() == []


def test_the_generation_tells_that_something_was_added(cache: Cache) -> None:
    before = cache.repairs.generation()
    assert cache.repairs.generation() == before
    cache.repairs.add(*SHARED)
    cache.repairs.done(*SHARED)
    assert cache.repairs.generation() != before
