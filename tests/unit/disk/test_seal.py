"""What holds everywhere; that sealing works is proven where it can: see tests/guest."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk import seal as seal_module
from snapd.disk.cache import open_cache
from snapd.disk.seal import Seal, SealState, choose_seal, is_sealed, why_unsealable
from snapd.model.errors import CacheUnusable
from tests.caching import assert_sound, assert_tree, staged, store_all
from tests.samples import sample

ONE = sample({"a": b"1", "d/b": b"x" * 2_000_000, "empty": b""}, modes={"a": 0o444})


@pytest.fixture
def dir_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


class Kernel:
    """Stands for a kernel with fs-verity: remembers what it sealed, or fails as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = 0) -> None:
        self.number = number
        self.sealed: list[int] = []
        monkeypatch.setattr(seal_module, "enable_verity", self.enable)
        monkeypatch.setattr(seal_module, "is_sealed", lambda fd: os.fstat(fd).st_ino in self.sealed)

    def enable(self, fd: int) -> None:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"")
        self.sealed.append(os.fstat(fd).st_ino)


def test_the_probe_agrees_with_what_files_here_say(dir_fd: int, tmp_path: Path) -> None:
    reason = why_unsealable(dir_fd, "probe")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_bytes(b"x")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        Seal(SealState("auto", active=True)).attempt(fd)
        assert is_sealed(fd) is (reason == "")
    finally:
        os.close(fd)


def test_a_plain_file_system_says_why_and_require_refuses_to_start() -> None:
    root = Path("/dev/shm") / f"seal-{os.getpid()}"  # tmpfs, which no kernel seals
    root.mkdir()
    try:
        with open_cache(root / "auto", now=lambda: 7.0) as cache:
            assert (cache.seal.mode, cache.seal.active) == ("auto", False)
            assert "fs-verity" in cache.seal.reason
        with (
            pytest.raises(CacheUnusable, match="requires fs-verity") as caught,
            open_cache(root / "require", now=lambda: 7.0, seal="require"),
        ):
            pass
        assert caught.value.details["directory"] == str(root / "require")
        assert staged(root / "require") == []
    finally:
        import shutil

        shutil.rmtree(root)


def test_switched_off_nothing_is_tried(dir_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    chosen = choose_seal("off", dir_fd, "here")
    chosen.apply(dir_fd)
    assert not chosen.state.active
    assert "switched off" in chosen.state.reason
    assert kernel.sealed == []


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EACCES])
def test_every_refusal_is_put_into_words(
    dir_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    Kernel(monkeypatch, number)
    state = choose_seal("auto", dir_fd, "here").state
    assert not state.active
    assert state.reason
    with pytest.raises(CacheUnusable, match=state.reason):
        choose_seal("require", dir_fd, "here")
    assert os.listdir(tmp_path) == []


def test_a_kernel_that_only_pretends_is_found_out(
    dir_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_module, "enable_verity", lambda _fd: None)
    monkeypatch.setattr(seal_module, "is_sealed", lambda _fd: False)
    assert "did not" in why_unsealable(dir_fd, "probe")


def test_every_object_is_sealed_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch)
    with open_cache(tmp_path / "c", now=lambda: 7.0, seal="require") as cache:
        assert cache.seal.active
        store_all(cache, ONE)
        tree = cache.publish(ONE.manifest, store="memory://store", now=5.0)
        assert_tree(tree, ONE.manifest)
        assert staged(cache.root) == []
        inodes = {path.stat().st_ino for path in (cache.root / "blobs").glob("*/*")}
        assert len(inodes) == 3
        assert inodes <= set(kernel.sealed)
        digest = ONE.manifest[1].checksum
        cache.blobs.derive(digest, from_mode=0o444, to_mode=0o640)
        assert cache.blobs.path(digest, 0o640).stat().st_ino in kernel.sealed
    assert_sound(tmp_path / "c")


def test_with_auto_one_that_can_not_be_sealed_is_kept_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = Kernel(monkeypatch)
    with open_cache(tmp_path / "c", now=lambda: 7.0, seal="auto") as cache:
        kernel.number = errno.ETXTBSY
        store_all(cache, ONE)
        assert_tree(cache.publish(ONE.manifest, store="memory://store", now=5.0), ONE.manifest)
    assert [each.message for each in caplog.records].count(
        "an object could not be sealed: Text file busy"
    ) == 1


@pytest.mark.parametrize(("mode", "number"), [("auto", errno.ENOSPC), ("require", errno.ETXTBSY)])
def test_a_seal_that_must_be_had_fails_the_object_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: seal_module.SealMode, number: int
) -> None:
    kernel = Kernel(monkeypatch)
    with open_cache(tmp_path / "c", now=lambda: 7.0, seal=mode) as cache:
        kernel.number = number
        with pytest.raises(Exception, match="can't store object"):
            store_all(cache, ONE)
        assert staged(cache.root) == []
        assert list(cache.blobs.iterate()) == []
