from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from snapd.disk.hashing import CHANGED, Columns, FileFailure, FileToHash
from snapd.disk.large_files import hash_large


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_every_file_is_hashed(tmp_path: Path, root_fd: int, jobs: int) -> None:
    (tmp_path / "d").mkdir()
    contents = [os.urandom(3_000_000 + number) for number in range(3)]
    for number, content in enumerate(contents):
        (tmp_path / f"d/{number}").write_bytes(content)
    files = [FileToHash(number, b"d/", b"%d" % number, False) for number in range(3)]
    columns, counted = Columns(3), list[int]()
    hash_large(root_fd, files, columns, jobs, counted.append)
    assert sum(counted) == 9_000_003
    assert columns.column(2).tolist() == [3_000_000, 3_000_001, 3_000_002]
    assert bytes(columns.digests) == b"".join(blake3(content).digest() for content in contents)


@pytest.mark.parametrize(("name", "code"), [(b"fifo", CHANGED), (b"gone", 2)])
def test_failure_names_the_file_and_leaves_no_thread(
    tmp_path: Path, root_fd: int, name: bytes, code: int
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileFailure) as failed:
        hash_large(root_fd, [FileToHash(7, b"", name, False)], Columns(8), 2, lambda count: None)
    assert (failed.value.number, failed.value.code) == (7, code)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hash")]


def test_whoever_is_told_may_stop_it(tmp_path: Path, root_fd: int) -> None:
    (tmp_path / "f").touch()
    os.truncate(tmp_path / "f", 1 << 30)

    class StopError(Exception):
        pass

    told = []

    def stop(size_bytes: int) -> None:
        told.append(size_bytes)
        raise StopError

    with pytest.raises(StopError):
        hash_large(root_fd, [FileToHash(0, b"", b"f", False)], Columns(1), 2, stop)
    assert sum(told) < 1 << 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hash")]


def test_no_files_are_no_work() -> None:
    hash_large(-1, [], Columns(0), 2, lambda count: None)
