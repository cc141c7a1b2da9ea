from __future__ import annotations

import os
from pathlib import Path

from snapd import __version__
from snapd.actions.receipts import ensure_receipt
from snapd.disk.cache import open_cache
from snapd.model.receipts import Share, Span
from tests.caching import store_all
from tests.samples import sample

MADE = sample({"a": b"1", "d/same": b"1", "d/b": b"22"})


def test_a_lost_receipt_says_that_everything_was_cached(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", now=lambda: 7.0) as cache:
        assert ensure_receipt(cache, MADE.id) is None
        store_all(cache, MADE)
        cache.publish(MADE.manifest, store="memory://store", now=5.0)
        made = ensure_receipt(cache, MADE.id)
        assert made is not None
        assert (made.store, made.pulled_at, made.version) == ("memory://store", 5.0, __version__)
        assert (made.files, made.directories, made.size_bytes) == (3, 2, 4)
        assert (made.verified, made.cached) == (Share(0, 0), Share(2, 3))
        assert made.host == os.uname().nodename
        assert cache.receipts.load(MADE.id) == made


def test_a_receipt_that_is_there_stays(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", now=lambda: 7.0) as cache:
        store_all(cache, MADE)
        cache.publish(MADE.manifest, store="memory://store", now=5.0)
        first = ensure_receipt(cache, MADE.id)
        before = (cache.root / "receipts" / f"{MADE.id}.json").stat()
        assert ensure_receipt(cache, MADE.id) == first
        assert (cache.root / "receipts" / f"{MADE.id}.json").stat().st_ino == before.st_ino
        cache.trees.remove(MADE.id)
        assert ensure_receipt(cache, MADE.id) is None


def test_objects_of_a_pull_are_told_apart_by_when_they_were_verified(
    tmp_path: Path,
) -> None:
    clock = [100.0]
    with open_cache(tmp_path / "c", now=lambda: clock[0]) as cache:
        store_all(cache, sample({"a": b"1"}))
        clock[0] = 200.0
        store_all(cache, sample({"b": b"22"}))
        clock[0] = 300.0
        cache.publish(MADE.manifest, store="memory://store", now=300.0)
        made = ensure_receipt(cache, MADE.id)
        assert made is not None
        assert made.cached_when == Span(100.0, 200.0, 0)
