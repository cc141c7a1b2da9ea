from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3

from snapd.disk.hashing import Columns
from snapd.disk.listing import Lister
from snapd.disk.rendering import render
from snapd.model.manifest import Manifest


@pytest.mark.parametrize("order", [("a.b", "a", "a-b"), ("z", "m", "b")])
def test_text_is_a_manifest_whose_directories_are_right(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    for name in order:
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner/f").touch()
        (tmp_path / f"{name}0").touch()
    (tmp_path / "twice").touch()
    (tmp_path / "empty").mkdir()
    root_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        lister = Lister("/r", root_fd, follow=True, excludes=None, on_listed=lambda count: None)
        listing = lister.run(0o755)
    finally:
        os.close(root_fd)
    columns = Columns(listing.file_count)
    for number in range(listing.file_count):
        # Two of the files have the same content, which counts once in a directory's checksum.
        digest = blake3(b"%d" % (number // 2)).digest()
        columns.put(number, (0o644, number, number, 1, number, 0, 0, digest))
    manifest = Manifest.parse(render(listing, columns))
    manifest.check_directories()
    assert manifest.file_count == listing.file_count == 7
    assert manifest.total_bytes == sum(range(7))
    assert {entry.mode for entry in manifest if entry.kind == "F"} == {0o644}
    assert manifest.find("./empty/") is not None
