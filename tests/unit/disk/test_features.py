from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapd.disk.features import kind_of, try_features


def test_features_are_tried_and_nothing_is_left(tmp_path: Path) -> None:
    found = try_features(tmp_path)
    assert found.hard_links
    assert isinstance(found.unnamed_files, bool)
    assert isinstance(found.reflinks, bool)
    assert not list(tmp_path.iterdir())


def test_tmpfs_has_no_reflinks(tmp_path: Path) -> None:
    if kind_of(Path("/dev/shm")) != "tmpfs":
        raise AssertionError("this test needs a tmpfs at /dev/shm")
    place = Path("/dev/shm") / f"snapsync-test-{os.getpid()}"
    place.mkdir()
    try:
        found = try_features(place)
    finally:
        place.rmdir()
    assert (found.hard_links, found.reflinks) == (True, False)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        try_features(tmp_path / "absent")


def test_the_kind_of_a_file_system_is_named() -> None:
    assert kind_of(Path("/proc")) == "proc"
    assert kind_of(Path("/")) != ""
