from __future__ import annotations

import errno
import os
import platform
from pathlib import Path

import pytest

from snapd.disk import fsops
from snapd.model.errors import AccessDenied, ActionFailed, NoSpace, SnapsyncError


@pytest.fixture
def dir_fd(tmp_path: Path) -> int:
    return os.open(tmp_path, fsops.DIRECTORY)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EACCES, AccessDenied),
        (errno.EPERM, AccessDenied),
        (errno.EIO, ActionFailed),
    ],
)
def test_an_error_of_the_system_becomes_one_of_ours(
    number: int, kind: type[SnapsyncError], tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught, fsops.translated("can't test", tmp_path):
        raise OSError(number, "whatever")
    assert str(tmp_path) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.details["errno"] == errno.errorcode[number]


def test_an_unnamed_file_gets_its_name_once(dir_fd: int, tmp_path: Path) -> None:
    assert fsops.can_link_unnamed(dir_fd, "probe")
    assert list(tmp_path.iterdir()) == []
    first, second = fsops.open_unnamed(dir_fd), fsops.open_unnamed(dir_fd)
    fsops.write_all(first, b"first")
    fsops.link_unnamed(first, "name", dir_fd)
    with pytest.raises(FileExistsError):
        fsops.link_unnamed(second, "name", dir_fd)
    assert (tmp_path / "name").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_rename_never_replaces(dir_fd: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError):
        fsops.rename_noreplace("a", "b", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    fsops.rename_noreplace("a", "c", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


def test_rename_never_replaces_where_the_kernel_does_not_help(
    dir_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no such flag")

    monkeypatch.setattr(fsops, "_renameat2", refuse)
    test_rename_never_replaces(dir_fd, tmp_path)


def test_exchange_swaps_two_names(dir_fd: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    fsops.rename_exchange("a", "b", first_dir_fd=dir_fd, second_dir_fd=dir_fd)
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("2", "1")


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 7])
def test_copy_keeps_every_byte(size: int, dir_fd: int, tmp_path: Path) -> None:
    body = os.urandom(size)
    (tmp_path / "a").write_bytes(body)
    source, target = os.open(tmp_path / "a", os.O_RDONLY), fsops.open_unnamed(dir_fd)
    assert fsops.copy(source, target) == size
    assert os.pread(target, size + 1, 0) == body


def test_copy_works_where_the_kernel_does_not_help(
    dir_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "not here")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    test_copy_keeps_every_byte(2_000_000, dir_fd, tmp_path)


def test_remove_tree_goes_through_closed_directories_of_any_depth(
    dir_fd: int, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    current = os.open(top, fsops.DIRECTORY)
    for depth in range(1500):
        os.mkdir("d" * 10, dir_fd=current)
        os.symlink(outside, "link", dir_fd=current)
        below = os.open("d" * 10, fsops.DIRECTORY, dir_fd=current)
        os.fchmod(current, 0o000 if depth % 2 else 0o555)
        os.close(current)
        current = below
    os.close(current)
    fsops.remove_tree("top", dir_fd)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").read_text() == "x"


def test_removing_what_is_not_there_is_no_error(dir_fd: int) -> None:
    fsops.remove_tree("nothing", dir_fd)


def test_remove_tree_does_not_follow_a_link_at_the_top(dir_fd: int, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(NotADirectoryError):
        fsops.remove_tree("link", dir_fd)
    assert (tmp_path / "real").is_dir()


def test_space_tells_the_size_of_a_file_system(tmp_path: Path) -> None:
    found = fsops.space(tmp_path)
    assert 0 <= found.free_bytes <= found.total_bytes
    assert found.total_bytes > 0


def test_barriers_work(dir_fd: int, tmp_path: Path) -> None:
    fsops.syncfs(dir_fd)
    fsops.fsync_directory(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fsops.syncfs(-1)


def test_reading_in_passing_gives_the_bytes_wherever_they_are(tmp_path: Path) -> None:
    body = os.urandom(300_000)
    (tmp_path / "file").write_bytes(body)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    fsops.random_access(fd)
    buffer = memoryview(bytearray(100_000))
    try:
        for drop in (False, True):
            if drop:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for offset, count in ((0, 100_000), (250_000, 50_000), (300_000, 0)):
                assert fsops.read_in_passing(fd, buffer, offset) == count
                assert buffer[:count] == body[offset : offset + count]
    finally:
        os.close(fd)


def test_io_is_idle_for_the_block_and_as_before_afterwards() -> None:
    get, mine = fsops._IOPRIO_CALLS[platform.machine()][1], fsops._IOPRIO_WHO_PROCESS
    before = fsops._libc().syscall(get, mine, 0)
    with fsops.idle_io():
        assert fsops._libc().syscall(get, mine, 0) == fsops._IOPRIO_IDLE
    assert fsops._libc().syscall(get, mine, 0) == before


def test_io_stays_as_it_is_on_machines_whose_call_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with fsops.idle_io():
        pass


def test_pieces_are_written_whole_however_many_and_however_little_a_call_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [os.urandom(1 + number % 7) for number in range(2500)]
    real, calls = os.writev, []

    def short(fd: int, some: list[bytes]) -> int:
        calls.append(len(some))
        return real(fd, some[: len(some) // 2])

    monkeypatch.setattr(os, "writev", short)
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    fsops.write_pieces(fd, pieces)
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"".join(pieces)
    assert calls == [1024, 1024, 452]
