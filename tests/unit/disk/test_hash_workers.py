from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from snapd.disk.hash_workers import (
    FileToHash,
    default_jobs,
    hash_in_workers,
    hash_inline,
    hash_large,
)
from snapd.disk.hashing import ContentChanged, Group
from snapd.model.errors import ActionFailed
from tests.unit.disk.processes import children

Batches = list[tuple[list[Group], int]]


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    for number in range(40):
        (tmp_path / f"f{number}").write_bytes(b"%d" % number)
    return [([(b"", [b"f%d" % number], b"\0")], number) for number in range(40)]


def test_every_batch_is_answered_once(root_fd: int, batches: Batches) -> None:
    inline = dict(hash_inline(root_fd, batches))
    answers = list(hash_in_workers(root_fd, batches, 3))
    assert len(answers) == 40
    assert dict(answers) == inline


def test_no_process_is_left_when_the_answers_are_left(root_fd: int, batches: Batches) -> None:
    before = children()
    with closing(hash_in_workers(root_fd, batches, 3)) as answers:
        next(answers)
        assert children() > before
    assert children() == before


def test_worker_that_is_killed_is_told(
    root_fd: int, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapd.disk.hash_workers._BOOT", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ActionFailed, match="hashing process ended"):
        list(hash_in_workers(root_fd, batches, 2))


def test_large_files_are_hashed_and_failures_are_answers(tmp_path: Path, root_fd: int) -> None:
    (tmp_path / "d").mkdir()
    content = os.urandom(3_000_000)
    (tmp_path / "d/large").write_bytes(content)
    os.mkfifo(tmp_path / "d/fifo")
    files = [
        FileToHash(number, b"d/", name, False) for number, name in enumerate([b"large", b"fifo"])
    ]
    counted: list[int] = []
    answers = dict(
        hash_large(root_fd, [*files, FileToHash(2, b"", b"gone", False)], 2, counted.append)
    )
    row = answers[files[0]]
    assert isinstance(row, tuple)
    assert row[-1] == blake3(content).digest()
    assert sum(counted) == len(content)
    assert isinstance(answers[files[1]], ContentChanged)
    assert isinstance(answers[FileToHash(2, b"", b"gone", False)], FileNotFoundError)


def test_jobs_are_bounded() -> None:
    assert 1 <= default_jobs() <= 16
