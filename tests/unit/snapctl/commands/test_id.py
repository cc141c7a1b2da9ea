from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapctl.commands.id import manifest_of_any_order
from snapd.disk.walk import walk
from snapd.model.errors import ManifestRefused
from tests.unit.snapctl.running import said_beside_progress, snapctl


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d").mkdir(parents=True)
    (root / "d/b").write_bytes(b"beta")
    (root / "a").write_bytes(b"alpha")
    return root


def test_id_of_a_directory(tmp_path: Path, source: Path) -> None:
    ran = snapctl("id", "source", home=tmp_path)
    said = said_beside_progress(ran, "id: ")
    assert (ran.stdout, said) == (f"{walk(source).manifest.id}\n", [])
    document = json.loads(snapctl("id", "source", "--json", home=tmp_path).stdout)
    assert document == {
        "id": walk(source).manifest.id,
        "files": 2,
        "directories": 2,
        "size_bytes": 9,
    }


def test_id_of_a_manifest_on_stdin(tmp_path: Path, source: Path) -> None:
    manifest = walk(source).manifest
    text = manifest.text.decode()
    shuffled = "# a comment\n\n" + "".join(reversed(text.splitlines(keepends=True)))
    for given in (text, text.rstrip("\n"), shuffled):
        ran = snapctl("id", home=tmp_path, stdin=given)
        assert ran.stdout == f"{manifest.id}\n", ran.stderr


@pytest.mark.parametrize("given", ["", "nonsense\n", "F 644 abc 1 ./a\n"])
def test_refused_manifest_on_stdin(tmp_path: Path, given: str) -> None:
    ran = snapctl("id", home=tmp_path, stdin=given)
    assert (ran.returncode, ran.stdout) == (17, "")


def test_refusal_counts_the_lines_that_were_given(source: Path) -> None:
    raw = walk(source).manifest.text + b"F 644 abc 1 ./z\n"
    with pytest.raises(ManifestRefused) as refused:
        manifest_of_any_order(raw)
    assert refused.value.details["line_number"] == 5


def test_excludes_and_absence(tmp_path: Path, source: Path) -> None:
    all_out = snapctl("id", "source", "--exclude", ".", home=tmp_path).stdout
    assert all_out != snapctl("id", "source", home=tmp_path).stdout
    ran = snapctl("id", "missing", home=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "missing" in ran.stderr


@pytest.mark.parametrize("verb", ["id", "manifest"])
def test_the_document_is_one_line_among_events(tmp_path: Path, verb: str) -> None:
    ran = snapctl(verb, ".", "--events", home=tmp_path)
    (line,) = ran.stdout.splitlines()
    assert json.loads(line)["id"] == walk(tmp_path).manifest.id
