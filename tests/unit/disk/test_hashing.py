from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from snapd.disk.hashing import (
    CHANGED,
    LARGE_FILE_BYTES,
    ROW,
    Columns,
    ContentChanged,
    FileFailure,
    hash_file,
    hash_group,
    hash_large_file,
    look_at_group,
    open_below,
)


@pytest.fixture
def directory_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def buffer_of(size_bytes: int = LARGE_FILE_BYTES) -> memoryview:
    return memoryview(bytearray(size_bytes))


@pytest.mark.parametrize("size_bytes", [0, 1, 4096, LARGE_FILE_BYTES - 1])
def test_small_file_is_hashed_with_its_facts(
    tmp_path: Path, directory_fd: int, size_bytes: int
) -> None:
    (tmp_path / "f").write_bytes(os.urandom(size_bytes))
    (tmp_path / "f").chmod(0o4751)
    status = (tmp_path / "f").stat()
    assert hash_file(directory_fd, b"f", False, buffer_of()) == (
        0o4751,
        size_bytes,
        size_bytes,
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
        blake3((tmp_path / "f").read_bytes()).digest(),
    )


@pytest.mark.parametrize("threads", [1, -1])
def test_large_file_is_left_to_the_large_way(
    tmp_path: Path, directory_fd: int, threads: int
) -> None:
    content = os.urandom(LARGE_FILE_BYTES)
    (tmp_path / "f").write_bytes(content)
    assert hash_file(directory_fd, b"f", False, buffer_of())[-1] == b""
    counted: list[int] = []
    row = hash_large_file(
        directory_fd, b"f", False, buffer_of(100_000), counted.append, threads=threads
    )
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
        hash_large_file(directory_fd, b"f", False, buffer_of(100_000), disturb)


def test_large_file_that_changes_once_is_read_again(tmp_path: Path, directory_fd: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(LARGE_FILE_BYTES))
    changes = iter([b"y"])

    def disturb(count: int) -> None:
        for change in changes:
            with path.open("r+b") as file:
                file.write(change)

    row = hash_large_file(directory_fd, b"f", False, buffer_of(100_000), disturb)
    assert row[-1] == blake3(path.read_bytes()).digest()


def test_fifo_in_the_place_of_a_file_does_not_block(tmp_path: Path, directory_fd: int) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(ContentChanged):
        hash_file(directory_fd, b"f", False, buffer_of())


def test_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / "target").write_bytes(b"1")
    (tmp_path / "f").symlink_to("target")
    with pytest.raises(OSError, match="symbolic links"):
        hash_file(directory_fd, b"f", False, buffer_of())
    assert hash_file(directory_fd, b"f", True, buffer_of())[:3] == (0o777, 6, 1)


@pytest.mark.parametrize(
    ("path", "names", "code", "number"),
    [
        (b"", [b"a", b"missing", b"a"], 2, 6),
        (b"", [b"p"], CHANGED, 5),
        (b"gone/", [b"p"], 2, 5),
    ],
)
def test_first_failure_of_a_group_is_told_by_its_number(
    tmp_path: Path, directory_fd: int, path: bytes, names: list[bytes], code: int, number: int
) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.mkfifo(tmp_path / "p")
    numbers = range(5, 5 + len(names))
    with pytest.raises(FileFailure) as failed:
        hash_group(directory_fd, (path, names, bytes(len(names)), numbers), Columns(9), buffer_of())
    assert (failed.value.number, failed.value.code) == (number, code)


def test_looking_finds_the_same_as_hashing(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"1")
    (tmp_path / "d/b").write_bytes(bytes(LARGE_FILE_BYTES))
    (tmp_path / "d/c").symlink_to("a")
    group = (b"d/", [b"a", b"b", b"c"], b"\0\0\1", range(1, 4))
    hashed, looked = Columns(5), Columns(5)
    assert hash_group(directory_fd, group, hashed, buffer_of()) == ([2], 2)
    look_at_group(directory_fd, group, looked)
    assert looked.rows == hashed.rows
    assert bytes(hashed.digests[32:64]) == blake3(b"1").digest()
    assert not any(looked.digests)
    assert hashed.column(2).tolist() == [0, 1, LARGE_FILE_BYTES, 1, 0]
    assert hashed.column(1, 3, 4).tolist() == [1]


def test_what_cannot_be_looked_at_stays_zero(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.mkfifo(tmp_path / "p")
    columns = Columns(3)
    look_at_group(directory_fd, (b"", [b"gone", b"p", b"a"], bytes(3), range(3)), columns)
    look_at_group(directory_fd, (b"gone/", [b"x"], bytes(1), range(1)), columns)
    assert not any(columns.rows[: 2 * ROW.size])
    assert any(columns.rows[2 * ROW.size :])


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
