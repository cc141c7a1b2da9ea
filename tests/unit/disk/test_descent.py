"""Descent: directories by descriptors, whatever the depth, never through a link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.descent import OPEN_MAX, Descent


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_goes_to_any_directory_in_any_order(root: int, tmp_path: Path) -> None:
    paths = [b"", b"a/", b"a/b/", b"a/c/", b"d/", b"a/b/e/", b"d/", b""]
    for path in paths:
        os.makedirs(os.path.join(os.fsencode(tmp_path), path), exist_ok=True)
    before = open_count()
    with Descent(root) as descent:
        for path in paths:
            found = os.fstat(descent.at(path))
            assert os.path.samestat(found, os.stat(os.path.join(os.fsencode(tmp_path), path)))
    assert open_count() == before


def test_refuses_links_and_stays_usable(root: int, tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with Descent(root) as descent:
        for path in (b"link/", b"link/below/"):
            with pytest.raises(NotADirectoryError):
                descent.at(path)
        with pytest.raises(FileNotFoundError):
            descent.at(b"real/none/")
        assert os.listdir(descent.at(b"real/")) == ["below"]


def test_a_deep_chain_holds_few_descriptors(root: int) -> None:
    depth = 5 * OPEN_MAX
    names = [b"%d" % level for level in range(depth)]
    before = open_count()
    with Descent(root) as descent:
        here = b""
        for name in names:
            os.mkdir(name, dir_fd=descent.at(here))
            here += name + b"/"
        assert os.listdir(descent.at(here)) == []
        for level in range(depth, 0, -1):
            above = b"".join(name + b"/" for name in names[: level - 1])
            assert os.listdir(descent.at(above)) == [names[level - 1].decode()]
            assert open_count() <= before + OPEN_MAX + 1
