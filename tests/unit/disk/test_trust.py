from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.disk.records import LOOKUP_BLOBS
from snapd.model.errors import ObjectLost
from snapd.model.ids import Digest
from snapd.model.objects import ABSENT
from tests.caching import assert_tree, ref_of, refs_of, store, store_all
from tests.samples import Sample, sample

ONE = sample({"a/b": b"shared", "a/c": b"2", "d": b"shared"}, modes={"": 0o555, "a/": 0o555})
TWO = sample({"x": b"shared", "new": b"3"})
SHARED = ref_of(b"shared")


class Rehashes:
    """Counts what had to be hashed again."""

    def __init__(self) -> None:
        self.right = 0
        self.wrong = 0

    def __call__(self, _size_bytes: int, right: bool) -> None:
        self.right += right
        self.wrong += not right


@pytest.fixture
def rehashes() -> Rehashes:
    return Rehashes()


@pytest.fixture
def cache(tmp_path: Path, rehashes: Rehashes) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0, on_rehash=rehashes) as opened:
        yield opened


def publish(cache: Cache, snapshot: Sample) -> Path:
    store_all(cache, snapshot)
    tick(cache)
    tree = cache.publish(snapshot.manifest, store="file:///s", now=9.0)
    cache.trust.settle_all()
    tick(cache)
    return tree


def tick(cache: Cache) -> None:
    """Let the clock of the file system move on, as it does between two uses of a cache."""
    before = cache.staging.clock_ns()
    while cache.staging.clock_ns() < before + 20_000_000:
        time.sleep(0.005)


def republish(cache: Cache, snapshot: Sample = ONE) -> None:
    """Renew the records of objects whose links were made a moment ago, as the next pull does."""
    manifest = snapshot.manifest
    assert cache.trust.settle(manifest, cache.trust.look(manifest)) == []


def survey(cache: Cache, snapshot: Sample) -> dict[Digest, int | None]:
    held = cache.trust.check(snapshot.manifest, snapshot.manifest.objects())
    modes = (None if mode == ABSENT else mode for mode in held)
    return {ref.digest: mode for ref, mode in zip(refs_of(snapshot), modes, strict=True)}


def test_what_was_just_fetched_is_not_hashed_again(cache: Cache, rehashes: Rehashes) -> None:
    publish(cache, ONE)
    publish(cache, TWO)
    assert rehashes.wrong == 0
    republish(cache)
    republish(cache, TWO)
    hashed = rehashes.right
    for each in (ONE, TWO):
        assert None not in survey(cache, each).values()
    assert rehashes.right == hashed


def test_records_survive_the_closing_of_the_cache(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", now=lambda: 7.0) as cache:
        publish(cache, ONE)
        republish(cache)
        store(cache, ref_of(b"3"), b"3")
        tick(cache)
    rehashes = Rehashes()
    with open_cache(tmp_path / "c", now=lambda: 8.0, on_rehash=rehashes) as cache:
        publish(cache, TWO)
        assert rehashes.right == rehashes.wrong == 0


def test_a_write_through_a_tree_is_found_and_both_trees_get_the_right_bytes(
    cache: Cache, rehashes: Rehashes
) -> None:
    first = publish(cache, ONE)
    reader = (first / "a" / "b").open("rb")
    with (first / "a" / "b").open("r+b") as file:
        file.write(b"SHARED")
    assert survey(cache, TWO)[SHARED.digest] is None
    assert rehashes.wrong == 1
    assert cache.complete(ONE.id) is None
    assert cache.snapshots() == []
    second = publish(cache, TWO)
    assert_tree(second, TWO.manifest)
    assert_tree(first, ONE.manifest)
    assert cache.complete(ONE.id) is not None
    assert cache.repairs.pending() == []
    assert (first / "a" / "b").stat().st_ino == (second / "x").stat().st_ino
    with reader:
        assert reader.read() == b"SHARED"
    (kept,) = [path for path in cache.quarantine.path.iterdir() if path.suffix != ".json"]
    assert kept.read_bytes() == b"SHARED"


def test_bytes_of_the_same_length_at_the_same_time_are_found_by_ctime(cache: Cache) -> None:
    tree = publish(cache, ONE)
    found = (tree / "d").stat()
    (tree / "d").write_bytes(b"SHARED")
    os.utime(tree / "d", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert survey(cache, TWO)[SHARED.digest] is None


def test_a_write_in_the_same_tick_of_the_clock_is_found(cache: Cache) -> None:
    store_all(cache, ONE)
    tree = cache.publish(ONE.manifest, store="file:///s", now=9.0)
    cache.trust.settle_all()
    (tree / "d").write_bytes(b"SHARED")
    assert survey(cache, TWO)[SHARED.digest] is None


def test_a_changed_mode_is_put_right_and_costs_one_hash(cache: Cache, rehashes: Rehashes) -> None:
    tree = publish(cache, ONE)
    republish(cache)
    before = rehashes.right
    (tree / "d").chmod(0o666)
    assert survey(cache, TWO)[SHARED.digest] == 0o644
    assert rehashes.right == before + 1
    assert_tree(tree, ONE.manifest)


def test_a_link_from_outside_costs_one_hash(cache: Cache, rehashes: Rehashes) -> None:
    tree = publish(cache, ONE)
    republish(cache)
    before = rehashes.right
    os.link(tree / "d", cache.root / "outside")
    tick(cache)
    for _ in range(3):
        assert survey(cache, TWO)[SHARED.digest] == 0o644
    assert rehashes.right == before + 1


def test_another_mode_that_is_right_stands_in_for_a_damaged_one(cache: Cache) -> None:
    publish(cache, ONE)
    cache.blobs.derive(SHARED.digest, from_mode=0o644, to_mode=0o600)
    cache.blobs.path(SHARED.digest, 0o644).write_bytes(b"damaged")
    assert survey(cache, TWO)[SHARED.digest] == 0o600


def test_a_lost_index_costs_one_hash_an_object_and_nothing_else(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", now=lambda: 7.0) as cache:
        publish(cache, ONE)
    for path in (tmp_path / "c").glob("index.sqlite3*"):
        path.unlink()
    rehashes = Rehashes()
    with open_cache(tmp_path / "c", now=lambda: 8.0, on_rehash=rehashes) as cache:
        assert cache.complete(ONE.id) is not None
        for _ in range(3):
            assert None not in survey(cache, ONE).values()
        assert (rehashes.right, rehashes.wrong) == (2, 0)


def test_publishing_refuses_what_was_damaged_since_it_was_planned(tmp_path: Path) -> None:
    clock = [7.0]
    with open_cache(tmp_path / "c", now=lambda: clock[0]) as cache:
        store_all(cache, ONE)
        cache.blobs.path(SHARED.digest, 0o644).write_bytes(b"damaged")
        clock[0] += 100.0
        with pytest.raises(ObjectLost, match=SHARED.digest):
            cache.publish(ONE.manifest, store="", now=9.0)
        assert cache.complete(ONE.id) is None
        assert_tree(publish(cache, ONE), ONE.manifest)


def test_what_is_damaged_between_its_arrival_and_its_tree_is_found_right_after(
    cache: Cache,
) -> None:
    store_all(cache, ONE)
    tick(cache)
    cache.blobs.path(SHARED.digest, 0o644).write_bytes(b"SHARED")
    tree = cache.publish(ONE.manifest, store="", now=9.0)
    cache.trust.settle_all()
    assert cache.complete(ONE.id) is None
    assert publish(cache, ONE) == tree
    assert_tree(tree, ONE.manifest)
    assert cache.complete(ONE.id) is not None


def test_an_object_that_is_replaced_while_its_tree_is_made_is_linked_anew(cache: Cache) -> None:
    store_all(cache, ONE)
    seen = cache.trust.look(ONE.manifest)
    tree = cache.trees.build(ONE.manifest)
    cache.manifests.save(ONE.id, ONE.manifest.text)
    (tree / "d").write_bytes(b"SHARED")
    found = cache.blobs.facts(SHARED.digest, 0o644)
    assert found is not None
    cache.blobs.quarantine(SHARED.digest, 0o644, inode=found.inode)
    store(cache, SHARED, b"shared")
    assert cache.trust.settle(ONE.manifest, seen) == [(SHARED.digest, 0o644)]
    cache.repairs.add(SHARED.digest, 0o644)
    assert_tree(publish(cache, ONE), ONE.manifest)


def test_many_objects_are_looked_up_in_batches(cache: Cache, rehashes: Rehashes) -> None:
    files = {f"{n % 50}/{n}": b"%d" % n for n in range(2 * LOOKUP_BLOBS + 10)}
    large = sample(files)
    tree = publish(cache, large)
    (tree / "7" / "7").write_bytes(b"damaged")
    found = survey(cache, large)
    assert list(found.values()).count(None) == 1
    assert rehashes.wrong == 1


def test_a_tree_that_goes_leaves_the_records_of_what_it_shared(
    cache: Cache, rehashes: Rehashes
) -> None:
    publish(cache, ONE)
    publish(cache, TWO)
    republish(cache)
    republish(cache, TWO)
    hashed = rehashes.right
    with cache.trust.losing_links(TWO.manifest.text):
        cache.trees.remove(TWO.id)
        tick(cache)
    assert None not in survey(cache, ONE).values()
    assert rehashes.right == hashed


def test_what_was_changed_before_a_tree_goes_is_not_trusted_thereby(cache: Cache) -> None:
    tree = publish(cache, ONE)
    publish(cache, TWO)
    (tree / "d").write_bytes(b"SHARED")
    with cache.trust.losing_links(TWO.manifest.text):
        cache.trees.remove(TWO.id)
    assert survey(cache, ONE)[SHARED.digest] is None
