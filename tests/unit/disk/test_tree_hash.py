from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapd.disk import hash_workers, tree_hash
from snapd.disk.tree_hash import absolute_path
from snapd.disk.walk import WalkOptions, WalkProgress, absolute_root, identify, walk
from snapd.model.ids import digest_of
from tests.unit.disk.processes import children


@pytest.mark.parametrize(
    "path", ["", ".", "a", "./a/.", "a//b/", "/", "//", "/a/../b", "//a", "/.", "a/..", "..x/"]
)
def test_paths_are_made_absolute_as_pathlib_does(path: str) -> None:
    assert absolute_path(path) == absolute_root(Path(path))
    assert absolute_path(path) == "/" + str(Path(path).absolute()).lstrip("/")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(700):
        path = tmp_path / f"d{number % 3}/f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % number)
    for number in range(3):
        (tmp_path / f"d{number}/large").write_bytes(os.urandom(2**20 + number))
        (tmp_path / f"d{number}/e").mkdir()
        (tmp_path / f"d{number}/e/last").write_bytes(b"x")
    return tmp_path


def test_id_alone_is_that_of_the_manifest(tree: Path) -> None:
    manifest = walk(tree).manifest
    told = identify(tree)
    assert told.snapshot_id == manifest.id
    assert told.snapshot_id == digest_of(manifest.text)
    assert told[1:] == (manifest.file_count, manifest.directory_count, manifest.total_bytes)


def test_every_file_is_counted_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_hash, "_INLINE_SECONDS", 0)
    monkeypatch.setattr(tree_hash, "WORKERS_FROM_SECONDS", 0)
    for jobs in (1, 3):
        seen: list[WalkProgress] = []
        manifest = walk(tree, WalkOptions(jobs=jobs), seen.append).manifest
        last = seen[-1]
        assert (last.files_hashed, last.bytes_hashed) == (706, manifest.total_bytes)
        assert sorted(each.files_hashed for each in seen) == [each.files_hashed for each in seen]


def test_many_files_are_looked_at_by_many_processes(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_hash, "_LOOKS_PER_PROCESS", 100)
    options = WalkOptions(jobs=4, stat_cache_dir=str(tmp_path_factory.mktemp("cache") / "stat"))
    forks: list[int] = []
    fork = hash_workers._fork
    before = children()

    def counted(*arguments: object) -> int:
        forks.append(1)
        return fork(*arguments)  # type: ignore[arg-type]

    first = identify(tree, options)
    monkeypatch.setattr(hash_workers, "_fork", counted)
    monkeypatch.setattr(tree_hash, "WORKERS_FROM_SECONDS", 1000)
    assert identify(tree, options) == first
    # Three batches of files, one of them for this process.
    assert len(forks) == 2
    assert children() == before


def test_only_some_files_of_a_directory(tree: Path) -> None:
    """Batches of numbers with gaps, as they are left when some files are known."""
    root_fd = os.open(tree, os.O_RDONLY)
    try:
        hashing = tree_hash.TreeHash(
            str(tree),
            root_fd,
            0o755,
            follow=True,
            excludes=None,
            jobs=1,
            stat_cache_dir=None,
            on_progress=lambda *counts: None,
        )
    finally:
        os.close(root_fd)
    listing, paths = hashing.listing, hashing._paths
    for step in (1, 2, 3, 250):
        numbers = list(range(0, listing.file_count, step))
        batches = tree_hash._Batches(listing, numbers)
        found = []
        for task in range(len(batches)):
            for directory, names, links, files in batches.groups(task, paths):
                assert len(names) == len(links) == len(files)
                found += list(zip(files, [directory + name for name in names], strict=True))
        expected = []
        for number in numbers:
            directory_number, entry = listing.locate(number)
            expected.append((number, paths.of(directory_number) + listing.name(entry)))
        assert found == expected
        assert sum(map(batches.size, range(len(batches)))) == len(numbers)
