"""What is extraneous, in which order it goes, and what holds a directory in place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.mirror import Rule, extraneous, grant_owner, remove_entry, restrict, split
from tests.ordinary_user import as_ordinary_user, nobodys_directory


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    for path in ("keep/x", "gone/a/1", "gone/b/2", "top"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def one_of(*paths: bytes) -> Rule:
    return lambda path: path in paths


def test_content_goes_before_its_directory(root: int, tmp_path: Path) -> None:
    listed = one_of(b"keep/", b"keep/x")

    found = list(extraneous(root, listed=listed, protected=one_of(), remove=False))

    assert found == [b"top", b"gone/a/1", b"gone/a/", b"gone/b/2", b"gone/b/", b"gone/"]
    assert (tmp_path / "gone/a/1").exists()
    assert list(extraneous(root, listed=listed, protected=one_of(), remove=True)) == found
    assert os.listdir(tmp_path) == ["keep"]


def test_protected_paths_hold_the_directories_above_them(root: int, tmp_path: Path) -> None:
    protected = one_of(b"gone/a", b"top")

    found = list(extraneous(root, listed=one_of(), protected=protected, remove=True))

    assert found == [b"gone/b/2", b"gone/b/", b"keep/x", b"keep/"]
    assert (tmp_path / "gone/a/1").exists()


def test_a_listed_directory_is_searched_although_protected(root: int, tmp_path: Path) -> None:
    listed, protected = one_of(b"gone/", b"keep/", b"keep/x", b"top"), one_of(b"gone")

    assert list(extraneous(root, listed=listed, protected=protected, remove=True)) == [
        b"gone/a/1",
        b"gone/a/",
        b"gone/b/2",
        b"gone/b/",
    ]


def test_links_are_removed_and_not_entered(root: int, tmp_path: Path) -> None:
    (tmp_path / "keep" / "link").symlink_to(tmp_path / "gone")
    listed = one_of(b"keep/", b"keep/x", b"gone/", b"gone/a/", b"gone/a/1", b"gone/b/", b"top")

    found = list(extraneous(root, listed=listed, protected=one_of(), remove=True))

    assert found == [b"gone/b/2", b"keep/link"]


def test_removes_any_entry_and_minds_none(root: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    for name in (b"link", b"top", b"gone", b"never there"):
        remove_entry(root, name)
    assert os.listdir(tmp_path) == ["keep"]


def test_an_owner_can_be_let_into_a_closed_directory() -> None:
    def let_in(base: Path) -> None:
        (base / "closed").mkdir(mode=0o000)
        fd = os.open(base, os.O_RDONLY)
        grant_owner(fd, b"closed")
        assert stat.S_IMODE((base / "closed").stat().st_mode) == 0o700
        restrict(fd, b"closed", lambda mode: mode & 0o500)
        assert stat.S_IMODE((base / "closed").stat().st_mode) == 0o500
        os.close(fd)

    with nobodys_directory() as base:
        as_ordinary_user(lambda: let_in(base))


def test_a_mode_is_never_changed_through_a_link(root: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(OSError, match="directory"):
        restrict(root, b"link", lambda _mode: 0)


def test_split_names_a_directorys_parent() -> None:
    assert split(b"a/b/c/") == (b"a/b/", b"c")
    assert split(b"a/") == (b"", b"a")


def test_an_error_names_the_path_below_the_root() -> None:
    def list_closed(base: Path) -> None:
        (base / "a" / "closed").mkdir(parents=True)
        (base / "a" / "closed").chmod(0o000)
        fd = os.open(base, os.O_RDONLY)
        with pytest.raises(PermissionError) as caught:
            list(extraneous(fd, listed=one_of(), protected=one_of(), remove=False))
        assert caught.value.filename == b"a/closed/"
        os.close(fd)

    with nobodys_directory() as base:
        as_ordinary_user(lambda: list_closed(base))
