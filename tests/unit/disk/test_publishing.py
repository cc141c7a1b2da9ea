from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.publishing import Press, blob_name, hash_file
from snapd.disk.quarantine import Quarantine
from snapd.disk.staging import Staging
from snapd.model.ids import digest_of
from tests.caching import ref_of


@pytest.fixture(params=[True, False], ids=["unnamed", "named"])
def press(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Press]:
    for name in ("blobs", "staging", "quarantine"):
        (tmp_path / name).mkdir()
    for number in range(256):
        (tmp_path / "blobs" / f"{number:02x}").mkdir()
    staging = Staging.create(tmp_path / "staging", "boot")
    quarantine = Quarantine(tmp_path / "quarantine", max_bytes=1000, now=lambda: 1.0)
    press = Press(tmp_path / "blobs", staging, quarantine, unnamed=request.param)
    yield press
    press.close()
    quarantine.close()
    staging.close()


def test_a_staged_file_is_private_until_it_is_published(press: Press) -> None:
    ref = ref_of(b"abc", 0o755)
    with press.stage(ref.digest) as staged:
        os.write(staged.fd, b"abc")
        assert stat.S_IMODE(os.fstat(staged.fd).st_mode) == 0o600
        assert list(press.root.glob("*/*")) == []
        press.publish(staged, ref.digest, ref.mode)
    (published,) = press.root.glob("*/*")
    assert published.name == blob_name(ref.digest, 0o755)
    assert stat.S_IMODE(published.stat().st_mode) == 0o755


def test_a_staged_file_that_is_closed_is_gone(press: Press) -> None:
    with press.stage(ref_of(b"abc").digest) as staged:
        os.write(staged.fd, b"abc")
    names = [path.name for path in press.root.parent.rglob("*") if path.is_file()]
    assert names == ["marker"]


def test_hashing_a_file_starts_at_its_beginning(tmp_path: Path) -> None:
    body = os.urandom(2_500_000)
    (tmp_path / "x").write_bytes(body)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    os.lseek(fd, 77, os.SEEK_SET)
    assert hash_file(fd) == digest_of(body)
    os.close(fd)


def test_pieces_are_published_under_their_mode_whatever_the_umask(press: Press) -> None:
    before = os.umask(0o077)
    try:
        for mode in (0o644, 0o755, 0o444, 0o4755):
            ref = ref_of(f"{mode}".encode(), mode)
            facts = press.settle_pieces(ref, [f"{mode}".encode()], "")
            (published,) = press.root.glob(f"*/{blob_name(ref.digest, mode)}")
            found = published.stat()
            assert stat.S_IMODE(found.st_mode) == mode & 0o777
            assert facts == (found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            assert press.settle_pieces(ref, [f"{mode}".encode()], "") is None
    finally:
        os.umask(before)
