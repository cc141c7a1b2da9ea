"""Every manifest that the real tool wrote is read, checked and rendered byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from snapd.model.diff import diff
from snapd.model.errors import ManifestRefused
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from tests.data import quirks, vectors

VECTORS = [pytest.param(case, id=case["name"]) for case in vectors()]


def test_the_vectors_are_there() -> None:
    assert len(VECTORS) >= 50


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_is_read_checked_and_rendered(case: dict[str, Any]) -> None:
    raw = case["manifest"].encode() + b"\n"
    manifest = Manifest.parse(raw, expected_id=SnapshotId(case["id"]))
    manifest.check_directories()
    assert manifest.text == raw
    assert manifest.id == case["id"]
    assert len(manifest) == raw.count(b"\n") == manifest.file_count + manifest.directory_count
    assert Manifest.from_entries(reversed(list(manifest))).text == raw
    assert all(manifest.find(entry.path) == entry for entry in manifest)
    assert list(diff(manifest, manifest)) == []


@pytest.mark.parametrize("name", ["name-with-lf", "name-with-trailing-cr"])
def test_what_the_real_tool_writes_and_cannot_read_is_refused(name: str) -> None:
    (case,) = [case for case in quirks() if case["name"] == name]
    raw = case["real"]["manifest"].encode() + b"\n"
    with pytest.raises(ManifestRefused):
        Manifest.parse(raw, expected_id=SnapshotId(case["real"]["id"]))


def test_an_injected_entry_is_refused_for_its_path() -> None:
    (case,) = [case for case in quirks() if case["name"] == "name-with-lf-injects-entry"]
    raw = case["real"]["manifest"].encode() + b"\n"
    with pytest.raises(ManifestRefused) as caught:
        Manifest.parse(raw, expected_id=SnapshotId(case["real"]["id"]))
    assert caught.value.details["line_number"] == 4
    assert caught.value.details["path"] == "evil"
