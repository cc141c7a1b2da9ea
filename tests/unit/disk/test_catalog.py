from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from snapd.disk.catalog import OwnRecord
from snapd.model.errors import ActionFailed, SnapsyncError, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.pushes import Push
from tests.unit.model.registering import snapshot

A, B, C = (snapshot(text) for text in "abc")

WRITER = """
import sys
from pathlib import Path
from snapd.disk.catalog import OwnRecord
from snapd.model.ids import SnapshotId, digest_of
path, name = sys.argv[1:]
record = OwnRecord(Path(path))
for number in range(25):
    made = SnapshotId(digest_of(f"{name} {number}".encode()))
    assert record.add("/data", made, now_ms=1000, by=name)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "catalog" / "default.jsonl"


def told(path: Path) -> list[tuple[str, SnapshotId, SnapshotId | None]]:
    return [
        (push.location, push.snapshot_id, push.previous_id) for push in OwnRecord(path).pushes()
    ]


def test_what_is_recorded_is_read_newest_first(path: Path) -> None:
    record = OwnRecord(path)
    assert record.pushes() == []
    assert record.add("/data", A, now_ms=1000, by="ann") == Push(1000, "/data", A, by="ann")
    assert record.add("/data", A, now_ms=2000, by="ann") is None
    record.add("/dätä\n", C, now_ms=2500, by="ann")
    record.add("/data", B, now_ms=900, by="bob")
    assert told(path) == [("/data", B, A), ("/dätä\n", C, None), ("/data", A, None)]
    assert record.pushes()[0].at_ms == 1001
    record.add("/data", C, now_ms=7, by="bob", keep_time=True)
    assert [push.at_ms for push in record.pushes()] == [7, 1001, 2500, 1000]
    assert told(path)[0] == ("/data", C, B), "the newest is the latest line"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_many_writers_at_once_lose_nothing_and_make_one_chain(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abcd"]
    assert [writer.wait() for writer in writers] == [0] * 4
    found = OwnRecord(path).pushes()
    assert len(found) == 100
    before = [*(push.snapshot_id for push in found[1:]), None]
    assert [push.previous_id for push in found] == before


def test_a_part_of_a_line_and_lines_of_another_version_are_passed_over(path: Path) -> None:
    record = OwnRecord(path)
    record.add("/data", A, now_ms=1000, by="ann")
    with path.open("ab") as file:
        file.write(b'{"snapshot_id": 3}\n{"at": "x", "location": 1}\n[]\n{"at": "2026-')
    record.add("/data", B, now_ms=2000, by="ann")
    assert told(path) == [("/data", B, A), ("/data", A, None)]


def test_a_long_file_loses_its_older_half(path: Path) -> None:
    record = OwnRecord(path, length_max_bytes=4000)
    made = [snapshot(str(number)) for number in range(60)]
    for number, each in enumerate(made):
        record.add("/data", each, now_ms=number, by="ann")
        assert path.stat().st_size <= 4000
    found = [push.snapshot_id for push in record.pushes()]
    assert 5 < len(found) < 60
    assert found == made[::-1][: len(found)]
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("data", [b"redb\x1a\n\xa9\r\n", b'{"name": "mine"}\n', b"\n"])
def test_a_file_that_is_something_else_is_never_written_to(
    path: Path, tmp_path: Path, data: bytes
) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(UsageError, match="not a record"):
        OwnRecord(path).add("/data", A, now_ms=1, by="ann")
    with pytest.raises(UsageError):
        OwnRecord(path).pushes()
    assert path.read_bytes() == data
    for place in (tmp_path, Path("/proc/self/nothing/x"), path / "below"):
        with pytest.raises(SnapsyncError):
            OwnRecord(place).add("/data", A, now_ms=1, by="ann")


def test_readers_wait_for_nobody_and_writers_not_for_ever(path: Path) -> None:
    OwnRecord(path).add("/data", A, now_ms=1000, by="ann")
    waits: list[float] = []
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        patient = OwnRecord(path, sleep=waits.append)
        assert len(patient.pushes()) == 1
        with pytest.raises(ActionFailed, match="locked"):
            patient.add("/data", B, now_ms=2000, by="ann")
    assert 1.9 < sum(waits) < 2.2
    assert patient.add("/data", B, now_ms=2000, by="ann")


def test_a_file_that_was_replaced_while_it_was_locked_is_opened_again(path: Path) -> None:
    OwnRecord(path).add("/data", A, now_ms=1000, by="ann")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def replace(_: float) -> None:
            shorter = path.with_name("new")
            shorter.write_bytes(path.read_bytes())
            os.replace(shorter, path)
            fcntl.flock(held, fcntl.LOCK_UN)

        OwnRecord(path, sleep=replace).add("/data", B, now_ms=2000, by="ann")
    assert told(path) == [("/data", B, A), ("/data", A, None)]


def test_a_file_that_no_record_can_be_is_not_read(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(b"{")
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="not a record"):
        OwnRecord(path).pushes()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EIO])
def test_without_locks_lines_are_written_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if error == errno.EIO:
        with pytest.raises(ActionFailed):
            OwnRecord(path).add("/data", A, now_ms=1000, by="ann")
    else:
        assert OwnRecord(path).add("/data", A, now_ms=1000, by="ann")
