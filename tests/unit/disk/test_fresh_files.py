"""Files where nothing is yet: which stretches there are, and what is left to the long way."""

from __future__ import annotations

import errno
import os
from array import array
from pathlib import Path

import pytest

from snapd.disk import fsops
from snapd.disk.destination import open_destination
from snapd.disk.fresh_files import FreshFiles, Stretch, link_file, share_file
from snapd.disk.tree_source import open_tree
from snapd.model.manifest import Manifest
from tests.trees import make_tree


def directories_of(manifest: Manifest) -> array[int]:
    return array("Q", (n for n, line in enumerate(manifest.lines()) if line.startswith(b"D")))


def test_a_stretch_is_many_small_directories_or_a_part_of_a_large_one(tmp_path: Path) -> None:
    small = {f"a{n:03}/{m}": (0o644, b"") for n in range(100) for m in range(10)}
    large = {f"large/{n:04}": (0o644, b"") for n in range(2500)}
    manifest = make_tree(tmp_path / "tree", small | large)
    with (
        open_tree(tmp_path / "tree") as source,
        open_destination(tmp_path / "dest", 0o755) as target,
    ):
        files = FreshFiles(manifest, source, target, link_file)
        files.cut(directories_of(manifest))

    assert files.stretches[0] == Stretch(0, 265), "the root and 24 whole directories"
    assert [end - first for first, end in files.stretches[-3:]] == [1024, 1024, 497]
    assert [stretch.first for stretch in files.stretches[1:]] == [
        stretch.end for stretch in files.stretches[:-1]
    ]
    assert files.stretches[-1].end == len(manifest)
    assert sum(files.files_in(*stretch) for stretch in files.stretches) == 3500


def test_it_stops_at_the_first_line_that_does_not_go(tmp_path: Path) -> None:
    manifest = make_tree(
        tmp_path / "tree", {"a": (0o644, b"1"), "b": (0o1644, b"22"), "c": (0o600, b"")}
    )
    with (
        open_tree(tmp_path / "tree") as source,
        open_destination(tmp_path / "dest", 0o755) as target,
    ):
        files = FreshFiles(manifest, source, target, link_file)
        files.cut(directories_of(manifest))
        assert files.work(0) == (2, 1)
        assert os.listdir(target.root_fd) == ["a"]
        assert files.work(0) == (1, 0), "it is there already, which is looked at elsewhere"


def test_an_orphan_does_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_tree(tmp_path / "tree", {f"{n:02}": (0o644, b"x") for n in range(40)})
    with (
        open_tree(tmp_path / "tree") as source,
        open_destination(tmp_path / "dest", 0o755) as target,
    ):
        files = FreshFiles(manifest, source, target, link_file)
        files.cut(directories_of(manifest))
        monkeypatch.setattr(os, "getpid", lambda: -1)
        looks = iter([files._owner, files._owner, 1])
        monkeypatch.setattr(os, "getppid", lambda: next(looks))
        assert files.work(0) == (32, 31)


@pytest.fixture
def fds(tmp_path: Path) -> tuple[int, int]:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/f").write_bytes(b"body")
    (tmp_path / "to").mkdir()
    return (
        os.open(tmp_path / "from", fsops.DIRECTORY),
        os.open(tmp_path / "to", fsops.DIRECTORY),
    )


def test_a_shared_file_has_its_mode_whatever_the_mask(
    fds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsops, "reflink", lambda *_fds: True)
    mask = os.umask(0o077)
    try:
        assert share_file(b"f", b"666", *fds)
    finally:
        os.umask(mask)
    assert os.stat("f", dir_fd=fds[1]).st_mode & 0o7777 == 0o666
    assert not share_file(b"f", b"2666", *fds)


def test_nothing_is_left_of_a_file_that_can_t_be_shared(
    fds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_fds: int) -> bool:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(fsops, "reflink", lambda *_fds: False)
    assert not share_file(b"f", b"644", *fds)
    monkeypatch.setattr(fsops, "reflink", full)
    with pytest.raises(OSError, match="full"):
        share_file(b"f", b"644", *fds)
    assert os.listdir(fds[1]) == []
