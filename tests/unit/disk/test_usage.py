from __future__ import annotations

from pathlib import Path

from snapd.disk.usage import blob_bytes


def test_the_sizes_of_all_objects_are_added_up(tmp_path: Path) -> None:
    for name, size_bytes in (("00/a.644", 10), ("00/b.600", 0), ("ff/c.755", 5)):
        path = tmp_path / "blobs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size_bytes)
    assert blob_bytes(tmp_path) == 15


def test_a_stray_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "stray").write_bytes(b"xxx")
    assert blob_bytes(tmp_path) == 0
