from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import ActionFailed, NoSpace
from snapd.model.ids import EMPTY_DIGEST
from snapd.model.manifest import Entry, Manifest
from tests.caching import assert_tree, ref_of, staged, store_all
from tests.ordinary_user import as_ordinary_user, nobodys_directory
from tests.samples import Sample, sample

MODES = {
    "": 0o555,
    "closed/": 0o000,
    "closed/in/": 0o555,
    "closed/in/f": 0o000,
    "run": 0o4755,
    "sticky/": 0o3777,
}
FILES = {
    "closed/in/f": b"secret",
    "closed/in/g": b"",
    "a-b": b"1",
    "a/b": b"1",
    "a.txt": b"2",
    "a/b2/c/d/e": b"3",
    "a/z": b"4",
    "run": b"#!",
    "sticky/x": b"5",
    "ü/ß \t'": b"6",
    "zz": b"7",
}
ODD = sample(FILES, modes=MODES)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        yield opened


def staged_trees(cache: Cache) -> list[Path]:
    return [path for path in cache.staging.path.iterdir() if path.is_dir()]


def test_a_tree_is_its_manifest_to_the_last_mode(cache: Cache) -> None:
    store_all(cache, ODD)
    assert not cache.trees.has(ODD.id)
    told: list[int] = []
    tree = cache.trees.build(ODD.manifest, told.append)
    assert tree == cache.trees.path(ODD.id) == cache.root / "trees" / ODD.id
    assert_tree(tree, ODD.manifest)
    assert told[-1] == len(FILES)
    blob = cache.blobs.path(ref_of(b"7").digest, 0o644)
    assert os.path.samefile(tree / "zz", blob)
    assert list(cache.trees.iterate()) == [ODD.id]
    assert staged(cache.root) == []
    assert staged_trees(cache) == []


def test_an_ordinary_user_builds_and_removes_trees_that_lock_himself_out() -> None:
    with nobodys_directory() as directory:

        def use() -> None:
            with open_cache(directory / "cache", now=lambda: 7.0) as cache:
                store_all(cache, ODD)
                tree = cache.publish(ODD.manifest, store="", now=1.0)
                assert tree.stat().st_mode & 0o7777 == 0o555
                assert (tree / "closed").stat().st_mode & 0o7777 == 0
                cache.trees.remove(ODD.id)
                assert list((cache.root / "trees").iterdir()) == []
                assert staged_trees(cache) == []

        as_ordinary_user(use)


def test_empty_directories_and_an_empty_snapshot(cache: Cache) -> None:
    for paths in (["./"], ["./", "./a/", "./a/b/", "./c/"]):
        manifest = Manifest.from_entries(Entry("D", 0o711, EMPTY_DIGEST, 0, path) for path in paths)
        assert_tree(cache.trees.build(manifest), manifest)


def test_depth_is_bounded_by_nothing_but_the_disk(cache: Cache) -> None:
    deep = "/".join("d" * 1500)
    entries = [Entry("D", 0o555, EMPTY_DIGEST, 0, "./")]
    entries += [
        Entry("D", 0o555, EMPTY_DIGEST, 0, f"./{deep[: 2 * n - 1]}/") for n in range(1, 1501)
    ]
    manifest = Manifest.from_entries(entries)
    tree = cache.trees.build(manifest)
    assert (tree / deep[:2999]).is_dir()
    cache.trees.remove(manifest.id)
    assert staged_trees(cache) == []


def test_a_tree_that_is_there_is_success(cache: Cache) -> None:
    store_all(cache, ODD)
    first = os.stat(cache.trees.build(ODD.manifest)).st_ino
    assert os.stat(cache.trees.build(ODD.manifest)).st_ino == first


def test_a_tree_that_appears_meanwhile_is_success(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_all(cache, ODD)
    cache.trees.build(ODD.manifest)
    answers = iter([False, True])
    monkeypatch.setattr(cache.trees, "has", lambda _: next(answers))
    cache.trees.build(ODD.manifest)
    assert staged_trees(cache) == []
    assert_tree(cache.trees.path(ODD.id), ODD.manifest)


def test_a_missing_object_is_named_and_nothing_is_left(cache: Cache) -> None:
    store_all(cache, ODD)
    digest = ref_of(b"4").digest
    cache.blobs.path(digest, 0o644).unlink()
    with pytest.raises(ActionFailed, match=digest) as caught:
        cache.trees.build(ODD.manifest)
    assert caught.value.details["path"] == "./a/z"
    assert not cache.trees.has(ODD.id)
    assert staged_trees(cache) == []


def test_a_full_disk_names_the_directory_and_nothing_is_left(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_all(cache, ODD)
    real = os.mkdir

    def full(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if path == b"c":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(NoSpace, match=str(cache.trees.root)):
        cache.trees.build(ODD.manifest)
    monkeypatch.undo()
    assert staged_trees(cache) == []
    assert_tree(cache.trees.build(ODD.manifest), ODD.manifest)


def test_more_files_than_a_file_may_have_names(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    many: Sample = sample({f"d{n % 7}/f{n}": b"same" for n in range(100)})
    store_all(cache, many)
    real = os.link

    def link_with_limit(src: Any, dst: Any, **options: Any) -> None:
        if os.stat(src, dir_fd=options["src_dir_fd"]).st_nlink >= 12:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(src, dst, **options)

    monkeypatch.setattr(os, "link", link_with_limit)
    tree = cache.trees.build(many.manifest)
    assert_tree(tree, many.manifest)
    inodes = {os.stat(path).st_ino for path in tree.glob("*/*")}
    assert 8 < len(inodes) < 12
    assert staged(cache.root) == []


def test_removing_takes_the_name_away_at_once_and_an_absent_tree_is_no_error(
    cache: Cache,
) -> None:
    store_all(cache, ODD)
    cache.trees.build(ODD.manifest)
    cache.trees.remove(ODD.id)
    cache.trees.remove(ODD.id)
    assert list(cache.trees.iterate()) == []
    assert staged_trees(cache) == []
    assert cache.blobs.verify(ref_of(b"7").digest, 0o644)


def test_a_root_with_another_mode_is_put_right(cache: Cache) -> None:
    store_all(cache, ODD)
    tree = cache.trees.build(ODD.manifest)
    tree.chmod(0o700)
    cache.trees.put_right(ODD.id, 0o555)
    assert tree.stat().st_mode & 0o7777 == 0o555
