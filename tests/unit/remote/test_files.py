"""The system calls of a directory that is a store: what errors mean, staging, locking, walking."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.model.errors import (
    AccessDenied,
    ConnectionLost,
    KeyMissing,
    NoSpace,
    SnapsyncError,
    StoreFailing,
    StoreMissing,
    UsageError,
)
from snapd.model.uris import StoreUri
from snapd.remote.base import ByteRange, Get, Stored
from snapd.remote.files import STAGING, StoreFiles
from tests.contract.sinks import RecordingSink


@pytest.fixture
def files(tmp_path: Path) -> StoreFiles:
    return StoreFiles(StoreUri("file", "", str(tmp_path)))


def never() -> None:
    """Never stop."""


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, KeyMissing),
        (errno.ENOTDIR, KeyMissing),
        (errno.EISDIR, KeyMissing),
        (errno.EACCES, AccessDenied),
        (errno.EPERM, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.ENAMETOOLONG, UsageError),
        (errno.EIO, StoreFailing),
        (errno.ESTALE, StoreFailing),
    ],
)
def test_what_the_kernel_says_becomes_a_cause_with_its_key(
    files: StoreFiles, number: int, kind: type[SnapsyncError]
) -> None:
    def fails() -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(kind, match="t/key") as caught:
        files.io("t/key", fails)
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, OSError)


def test_a_missing_root_is_told_from_a_missing_key(tmp_path: Path) -> None:
    files = StoreFiles(StoreUri("file", "", str(tmp_path / "absent")))
    with pytest.raises(StoreMissing, match="absent"):
        files.head("t/key")
    assert not files.holds("t/key")


def test_the_root_of_the_file_system_can_be_a_store() -> None:
    assert StoreFiles(StoreUri("file", "", "/")).path("a/b") == "/a/b"


def test_a_staged_file_is_private_and_gone_after_its_block(
    files: StoreFiles, tmp_path: Path
) -> None:
    with files.stage("t/key") as staged:
        staged.write(b"x")
        [name] = os.listdir(tmp_path / STAGING)
        assert stat.S_IMODE(os.stat(tmp_path / STAGING / name).st_mode) == 0o600
        assert len(name) == 16
    assert os.listdir(tmp_path / STAGING) == []
    assert not files.holds("t/key")


def write(files: StoreFiles, key: str, data: bytes, *, if_absent: bool) -> Stored:
    with files.stage(key) as staged:
        staged.write(data)
        staged.seal(durable=False)
        return staged.publish(if_absent=if_absent)


def test_publishing_makes_the_directories_and_keeps_what_is_there(files: StoreFiles) -> None:
    first = write(files, "a/b/c", b"first", if_absent=True)
    second = write(files, "a/b/c", b"second", if_absent=True)
    assert (first.existed, second.existed) == (False, True)
    assert files.read_document("a/b/c", 100).data == b"first"
    write(files, "a/b/c", b"third", if_absent=False)
    assert files.read_document("a/b/c", 100).data == b"third"
    files.sync_names(["a/b/c"])


def test_a_full_disk_is_no_space(files: StoreFiles) -> None:
    with files.stage("t/key") as staged:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, staged._fd)
        os.close(full)
        with pytest.raises(NoSpace, match="t/key"):
            staged.write(b"x" * 10)
    assert not files.holds("t/key")


def test_a_lock_has_one_holder(files: StoreFiles) -> None:
    with files.open_lock("t/key") as first, files.open_lock("t/key") as second:
        assert files.try_lock(first, "t/key")
        assert not files.try_lock(second, "t/key")
        first.close()
        assert files.try_lock(second, "t/key")


def test_a_file_that_shrinks_while_it_is_read_is_a_lost_body(files: StoreFiles) -> None:
    write(files, "t/key", b"x" * 100, if_absent=True)
    sink = RecordingSink()

    def shrink() -> None:
        os.truncate(files.path("t/key"), 10)

    with pytest.raises(ConnectionLost, match="ended after 10 of 100 bytes"):
        files.read_into_sink(Get("t/key", sink), bytearray(10), shrink)
    assert "finish" not in sink.calls


def test_a_body_is_read_in_pieces_of_the_buffer(files: StoreFiles) -> None:
    write(files, "t/key", bytes(range(100)), if_absent=True)
    sink = RecordingSink()
    assert files.read_into_sink(Get("t/key", sink, ByteRange(5, 25)), bytearray(10), never) == 25
    assert sink.body == bytes(range(5, 30))
    assert sink.calls == ["start", "write", "write", "write", "finish"]


def test_stopping_is_asked_for_before_every_piece_and_before_the_end(files: StoreFiles) -> None:
    write(files, "t/key", b"x" * 30, if_absent=True)

    class Stopped(BaseException):
        """Stands for a cancellation."""

    for allowed in range(4):
        sink = RecordingSink()
        left = iter(range(allowed))

        def check(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Stopped

        with pytest.raises(Stopped):
            files.read_into_sink(Get("t/key", sink), bytearray(10), check)
        assert sink.calls == ["start", *["write"] * allowed]


def test_a_walk_can_be_stopped_at_every_directory(files: StoreFiles) -> None:
    for i in range(3):
        write(files, f"t/{i}/x", b"", if_absent=True)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1

    assert [info.key for info in files.walk("t/", check)] == ["t/0/x", "t/1/x", "t/2/x"]
    assert checks == 4
