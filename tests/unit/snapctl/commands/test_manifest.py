from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapd.disk.walk import walk
from tests.unit.snapctl.running import snapctl


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d ü").mkdir(parents=True)
    (root / "d ü/b\r.x").write_bytes(b"beta")
    (root / "a").symlink_to("d ü")
    return root


def test_manifest_is_the_exact_text(tmp_path: Path, source: Path) -> None:
    ran = snapctl("manifest", "source", home=tmp_path, extra={"PYTHONIOENCODING": "ascii"})
    assert ran.returncode == 0, ran.stderr
    # What reads the output here turns CR into LF.
    assert ran.stdout == walk(source).manifest.text.decode().replace("\r", "\n")


def test_absolute_paths_and_no_follow(tmp_path: Path, source: Path) -> None:
    ran = snapctl("manifest", "source", "--absolute", "--no-follow", home=tmp_path)
    lines = [line.split(" ", 4) for line in ran.stdout.replace("\n.x", ".x").splitlines()]
    assert [line[4] for line in lines] == [f"{source}/", f"{source}/d ü/", f"{source}/d ü/b.x"]


def test_json_lists_the_entries(tmp_path: Path, source: Path) -> None:
    ran = snapctl("manifest", "--json", home=source)
    document = json.loads(ran.stdout)
    manifest = walk(source).manifest
    assert document["id"] == manifest.id
    assert [entry["path"] for entry in document["entries"]] == [e.path for e in manifest]
    assert document["entries"][1]["mode"] == "777"
