from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapctl.outputs import as_directory
from snapd.model.errors import UsageError


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    with as_directory(tmp_path) as source:
        assert source == tmp_path


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_becomes_a_directory_that_holds_it_alone(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    file.chmod(0o640)
    named = file
    if kind == "link":
        named = tmp_path / "latest.bin"
        named.symlink_to(file)
    before = sorted(os.listdir(tmp_path))
    with as_directory(named) as source:
        assert os.listdir(source) == [named.name]
        copied = source / named.name
        assert not copied.is_symlink()
        assert copied.read_bytes() == b"weights"
        assert copied.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == before
    assert file.read_bytes() == b"weights"


def test_what_is_not_there_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"), as_directory(tmp_path / "absent"):
        pass
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe"), as_directory(tmp_path / "pipe"):
        pass
