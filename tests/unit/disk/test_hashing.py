from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from snapd.disk.hashing import (
    CHANGED,
    LARGE_FILE_BYTES,
    ContentChanged,
    hash_file,
    hash_groups,
    hash_large_file,
    open_below,
)


@pytest.fixture
def directory_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("size_bytes", [0, 1, 4096, LARGE_FILE_BYTES - 1])
def test_small_file_is_hashed_with_its_facts(
    tmp_path: Path, directory_fd: int, size_bytes: int
) -> None:
    (tmp_path / "f").write_bytes(os.urandom(size_bytes))
    (tmp_path / "f").chmod(0o4751)
    status = (tmp_path / "f").stat()
    assert hash_file(directory_fd, b"f", False) == (
        0o4751,
        size_bytes,
        size_bytes,
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
        blake3((tmp_path / "f").read_bytes()).digest(),
    )


def test_large_file_is_left_to_the_large_way(tmp_path: Path, directory_fd: int) -> None:
    content = os.urandom(LARGE_FILE_BYTES)
    (tmp_path / "f").write_bytes(content)
    assert hash_file(directory_fd, b"f", False)[-1] == b""
    counted: list[int] = []
    row = hash_large_file(directory_fd, b"f", False, bytearray(100_000), counted.append)
    assert row[-1] == blake3(content).digest()
    assert sum(counted) == LARGE_FILE_BYTES


@pytest.mark.parametrize("cut", [True, False])
def test_large_file_that_is_cut_or_grows_meanwhile(
    tmp_path: Path, directory_fd: int, cut: bool
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(LARGE_FILE_BYTES))
    sizes = iter(range(100, 200))

    def disturb(count: int) -> None:
        if cut:
            os.truncate(path, next(sizes))
            return
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(ContentChanged):
        hash_large_file(directory_fd, b"f", False, bytearray(100_000), disturb)


def test_large_file_that_changes_once_is_read_again(tmp_path: Path, directory_fd: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(LARGE_FILE_BYTES))
    changes = iter([b"y"])

    def disturb(count: int) -> None:
        for change in changes:
            with path.open("r+b") as file:
                file.write(change)

    row = hash_large_file(directory_fd, b"f", False, bytearray(100_000), disturb)
    assert row[-1] == blake3(path.read_bytes()).digest()


def test_fifo_in_the_place_of_a_file_does_not_block(tmp_path: Path, directory_fd: int) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(ContentChanged):
        hash_file(directory_fd, b"f", False)


def test_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / "target").write_bytes(b"1")
    (tmp_path / "f").symlink_to("target")
    with pytest.raises(OSError, match="symbolic links"):
        hash_file(directory_fd, b"f", False)
    assert hash_file(directory_fd, b"f", True)[:3] == (0o777, 6, 1)


def test_groups_end_with_the_first_failure(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.mkfifo(tmp_path / "p")
    (tmp_path / "d").mkdir()
    groups = [(b"", [b"a", b"missing", b"a"], b"\0\0\0")]
    rows = list(hash_groups(directory_fd, groups))
    assert len(rows) == 2
    assert rows[1] == 2
    assert list(hash_groups(directory_fd, [(b"", [b"p"], b"\0")])) == [CHANGED]
    assert list(hash_groups(directory_fd, [(b"gone/", [b"p"], b"\0")])) == [2]


def test_paths_of_any_length_open(tmp_path: Path, directory_fd: int) -> None:
    names = ["d" * 250] * 40
    here = os.dup(directory_fd)
    for name in names:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    path = "/".join(names).encode()
    for spelt in (path, path + b"/"):
        fd = open_below(directory_fd, spelt)
        assert os.fstat(fd).st_ino == os.fstat(here).st_ino
        os.close(fd)
    os.close(here)
