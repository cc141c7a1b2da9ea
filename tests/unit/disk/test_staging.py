from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapd.disk.staging import Staging, boot_id, find_leftovers


def test_the_directory_of_a_living_process_is_no_leftover(tmp_path: Path) -> None:
    living = Staging.create(tmp_path, "boot")
    assert list(find_leftovers(tmp_path)) == []
    living.remove()
    living.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_leaves_its_boot_and_its_last_barrier(tmp_path: Path) -> None:
    dead = Staging.create(tmp_path, "some boot")
    (dead.path / "half").write_text("x")
    dead.mark_durable(12_345_678_000)
    dead.close()
    (left,) = find_leftovers(tmp_path)
    assert left.boot_id() == "some boot"
    assert left.durable_until_ns() == 12_345_678_000
    assert not left.wrote_nothing()
    assert list(find_leftovers(tmp_path)) == []  # two sweepers never take the same one
    left.remove()
    left.close()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_before_it_had_a_marker_wrote_nothing(tmp_path: Path) -> None:
    (tmp_path / "abc").mkdir()
    (left,) = find_leftovers(tmp_path)
    assert left.wrote_nothing()
    assert left.boot_id() == ""
    left.remove()
    left.close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_directory_is_durable_up_to_its_making(tmp_path: Path) -> None:
    staging = Staging.create(tmp_path, boot_id())
    before = os.stat(staging.path / "marker").st_mtime_ns
    (staging.path / "later").write_text("x")
    assert before <= os.stat(staging.path / "later").st_mtime_ns <= staging.clock_ns()
    staging.close()
    (left,) = find_leftovers(tmp_path)
    assert left.boot_id() == boot_id() != ""
    left.close()


def test_a_placed_file_is_whole_readable_and_replaces_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    staging = Staging.create(tmp_path / "staging", "boot")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for text in (b"one", b"two"):
            staging.place(text, "name", fd, durable=True)
            assert (tmp_path / "name").read_bytes() == text
        assert (tmp_path / "name").stat().st_mode & 0o777 == 0o644
        (tmp_path / "taken").mkdir()
        with pytest.raises(IsADirectoryError):
            staging.place(b"three", "taken", fd, durable=False)
        assert [path.name for path in staging.path.iterdir()] == ["marker"]
    finally:
        os.close(fd)
        staging.close()
