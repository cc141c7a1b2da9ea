"""A tree that is read by descriptors, and what is said when it is not what it should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapd.disk.tree_source import open_tree
from snapd.model.errors import TreeDiffers


def test_gives_directories_and_closes_them(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").touch()
    before = len(os.listdir("/proc/self/fd"))

    with open_tree(tmp_path) as source:
        assert os.stat("f", dir_fd=source.at(b"a/b/")).st_size == 0

    assert len(os.listdir("/proc/self/fd")) == before


def test_names_a_directory_that_is_missing_or_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with open_tree(tmp_path) as source:
        for name in (b"none/", b"link/"):
            with pytest.raises(TreeDiffers, match=name.decode()):
                source.at(name)


def test_there_must_be_a_tree(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(TreeDiffers, match=name):
            open_tree(tmp_path / name)
