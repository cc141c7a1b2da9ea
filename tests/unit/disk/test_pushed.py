from __future__ import annotations

from pathlib import Path

import pytest

from snapd.disk.pushed import Pushed, PushedSnapshots
from snapd.model.ids import SnapshotId

ID = SnapshotId("a" * 64)


def test_last_one_counts_for_its_directory_and_store(tmp_path: Path) -> None:
    pushed = PushedSnapshots(tmp_path / "new/pushed")
    assert pushed.last("/d", "s3://b") is None
    pushed.remember("/d", "s3://b", Pushed(SnapshotId("b" * 64)))
    pushed.remember("/d", "s3://b", Pushed(ID, reliances=3))
    assert PushedSnapshots(tmp_path / "new/pushed").last("/d", "s3://b") == Pushed(ID, 3)
    assert pushed.last("/d", "s3://other") is None
    assert pushed.last("/other", "s3://b") is None
    assert len(list((tmp_path / "new/pushed").iterdir())) == 1


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    pushed = PushedSnapshots(tmp_path)
    pushed.remember("/d\udcff", "s3://b", Pushed(ID))
    assert pushed.last("/d\udcff", "s3://b") == Pushed(ID)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "\x00", '{"directory": "/d", "store": "s3://b", "id": 1}']
)
def test_damaged_memory_is_no_memory(tmp_path: Path, content: str) -> None:
    pushed = PushedSnapshots(tmp_path)
    pushed.remember("/d", "s3://b", Pushed(ID))
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert pushed.last("/d", "s3://b") is None


def test_failure_to_remember_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pushed = PushedSnapshots(tmp_path / "file")
    pushed.remember("/d", "s3://b", Pushed(ID))
    assert pushed.last("/d", "s3://b") is None
