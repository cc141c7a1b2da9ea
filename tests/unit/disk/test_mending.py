from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from tests.caching import assert_tree, ref_of, staged, store, store_all
from tests.ordinary_user import as_ordinary_user, nobodys_directory
from tests.samples import sample

ONE = sample(
    {"a/closed/x": b"shared", "b": b"shared", "a/plus+(x)": b"shared", "c": b"own"},
    modes={"": 0o555, "a/": 0o511, "a/closed/": 0o000},
)
TWO = sample({"x": b"shared"})
SHARED = ref_of(b"shared")
BLOB = (SHARED.digest, 0o644)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        fill(opened)
        yield opened


def fill(cache: Cache) -> None:
    for each in (ONE, TWO):
        store_all(cache, each)
        cache.publish(each.manifest, store="", now=9.0)


def spoil(cache: Cache) -> None:
    """Damage the shared object and let that be found."""
    path = cache.blobs.path(*BLOB)
    path.chmod(0o644)
    path.write_bytes(b"SHARED")
    assert cache.trust.prove(*BLOB) is None


def test_every_name_in_every_tree_gets_the_new_object(cache: Cache) -> None:
    spoil(cache)
    assert cache.mender.mend() == {}
    store(cache, SHARED, b"shared")
    assert cache.mender.mend() == {BLOB: 2}
    for each in (ONE, TWO):
        assert_tree(cache.trees.path(each.id), each.manifest)
        assert cache.complete(each.id) is not None
    assert cache.blobs.path(*BLOB).stat().st_nlink == 5
    assert staged(cache.root) == []


def test_a_tree_that_somebody_works_on_waits_unless_that_is_the_caller(cache: Cache) -> None:
    spoil(cache)
    store(cache, SHARED, b"shared")
    with cache.snapshot_lock(ONE.id):
        assert cache.mender.mend() == {}
        assert cache.complete(TWO.id) is None
        assert cache.mender.mend(holding=ONE.id) == {BLOB: 2}
    assert_tree(cache.trees.path(ONE.id), ONE.manifest)


def test_an_object_that_no_tree_holds_any_more_is_forgotten(cache: Cache) -> None:
    spoil(cache)
    for each in (ONE, TWO):
        cache.trees.remove(each.id)
    assert cache.mender.mend() == {BLOB: 0}
    assert cache.repairs.pending() == []


def test_what_came_in_its_place_is_proven_before_it_is_linked(cache: Cache) -> None:
    spoil(cache)
    cache.blobs.path(*BLOB).write_bytes(b"as wrong")
    assert cache.mender.mend() == {}
    assert cache.repairs.pending() == [BLOB]
    assert not cache.blobs.has(*BLOB)


def test_a_name_that_is_missing_or_a_link_is_made_anew(cache: Cache) -> None:
    tree = cache.trees.path(ONE.id)
    (tree / "b").unlink()
    (tree / "a" / "closed" / "x").unlink()
    (tree / "a" / "closed" / "x").symlink_to("/etc/passwd")
    cache.repairs.add(*BLOB)
    assert cache.mender.mend() == {BLOB: 2}
    assert_tree(tree, ONE.manifest)


def test_a_tree_whose_directories_are_not_right_is_laid_out_anew(cache: Cache) -> None:
    tree = cache.trees.path(ONE.id)
    shutil.rmtree(tree / "a")
    (tree / "a").write_bytes(b"not a directory")
    cache.repairs.add(*BLOB)
    assert cache.mender.mend() == {BLOB: 2}
    assert_tree(tree, ONE.manifest)


def test_an_object_without_room_for_another_link_is_copied(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(cache)
    store(cache, SHARED, b"shared")
    real = os.link

    def link(source: str, target: str, **options: int) -> None:
        if cache.blobs.path(*BLOB).stat().st_nlink > 1:
            raise OSError(31, "too many links")
        real(source, target, **options)  # type: ignore[arg-type]  # descriptors and a flag

    monkeypatch.setattr(os, "link", link)
    assert cache.mender.mend() == {BLOB: 2}
    for each in (ONE, TWO):
        assert_tree(cache.trees.path(each.id), each.manifest)


def test_an_ordinary_owner_can_repair_closed_directories() -> None:
    with nobodys_directory() as home:

        def work() -> None:
            with open_cache(home / "cache", now=lambda: 7.0) as cache:
                fill(cache)
                spoil(cache)
                store(cache, SHARED, b"shared")
                assert cache.mender.mend() == {BLOB: 2}

        as_ordinary_user(work)
        for each in (ONE, TWO):
            assert_tree(home / "cache" / "trees" / each.id, each.manifest)
