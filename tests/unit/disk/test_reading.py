from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapd.disk.hashing import LARGE_FILE_BYTES, ContentChanged, FileRow
from snapd.disk.reading import read_file
from snapd.disk.walk import WalkOptions, walk
from snapd.model.ids import digest_of


class Taker:
    """Takes everything; `wanted` false: nothing."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.files = 0
        self.small: dict[bytes, bytes] = {}
        self.large: list[bytes] = []

    def wants(self, files: int) -> bool:
        self.files = files
        return self.wanted

    def take(self, file: object, row: FileRow, data: bytes) -> None:
        assert row[-1].hex() == digest_of(data)
        assert row[2] == len(data)
        self.small[file.directory + file.name] = data  # type: ignore[attr-defined]

    def take_large(self, file: object, row: FileRow) -> None:
        self.large.append(file.directory + file.name)  # type: ignore[attr-defined]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "r/d").mkdir(parents=True)
    (tmp_path / "r/d/f").write_bytes(b"content")
    (tmp_path / "r/empty").touch()
    (tmp_path / "r/link").symlink_to("d/f")
    (tmp_path / "r/large").write_bytes(os.urandom(LARGE_FILE_BYTES))
    return tmp_path / "r"


def test_a_taker_is_given_what_was_hashed(root: Path) -> None:
    taker = Taker(wanted=True)
    tree = walk(root, WalkOptions(), taker=taker)
    assert taker.small == {b"d/f": b"content", b"empty": b"", b"link": b"content"}
    assert taker.large == [b"large"]
    assert taker.files == 4
    assert tree.manifest.id == walk(root).manifest.id


def test_a_taker_that_wants_nothing_gets_nothing(root: Path) -> None:
    taker = Taker(wanted=False)
    walk(root, WalkOptions(), taker=taker)
    assert (taker.files, taker.small, taker.large) == (4, {}, [])


def test_a_large_file_is_only_looked_at(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        row, data = read_file(descriptor, b"large", False)
        assert (row[2], row[-1], data) == (LARGE_FILE_BYTES, b"", b"")
        row, data = read_file(descriptor, b"link", True)
        assert (row[1], data) == (len("d/f"), b"content")
    finally:
        os.close(descriptor)


def test_a_file_that_keeps_changing_is_no_content(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    real = os.read

    def read_and_append(fd: int, size_bytes: int) -> bytes:
        with (root / "d/f").open("ab") as file:
            file.write(b"more")
        return real(fd, size_bytes)

    monkeypatch.setattr(os, "read", read_and_append)
    try:
        with pytest.raises(ContentChanged):
            read_file(descriptor, b"d/f", False)
    finally:
        os.close(descriptor)
