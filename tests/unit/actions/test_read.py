from __future__ import annotations

from pathlib import Path

import pytest

from snapd.actions.read import read_manifest
from snapd.disk.walk import walk
from snapd.model.errors import (
    DigestMismatch,
    ManifestRefused,
    SnapshotNotFound,
    StoreFailing,
    StoreMissing,
)
from snapd.model.ids import SnapshotId
from snapd.model.layout import manifest_key
from snapd.remote.memory import Fault, MemoryStore


async def test_manifest_is_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    manifest = walk(tmp_path).manifest
    store = MemoryStore()
    store.objects[manifest_key(manifest.id)] = manifest.text
    assert await read_manifest(store, manifest.id) == manifest
    store.objects[manifest_key(manifest.id)] = manifest.text[:-2]
    with pytest.raises(DigestMismatch):
        await read_manifest(store, manifest.id)


async def test_a_manifest_that_is_too_long_is_refused_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"1")
    manifest = walk(tmp_path).manifest
    store = MemoryStore()
    store.objects[manifest_key(manifest.id)] = manifest.text
    monkeypatch.setattr("snapd.actions.read.MANIFEST_LIMIT_BYTES", len(manifest.text))
    assert await read_manifest(store, manifest.id) == manifest
    monkeypatch.setattr("snapd.actions.read.MANIFEST_LIMIT_BYTES", 10)
    with pytest.raises(ManifestRefused, match="longer than 10 B") as caught:
        await read_manifest(store, manifest.id)
    assert caught.value.details["limit_bytes"] == 10


async def test_a_manifest_of_another_failure_is_that_failure(tmp_path: Path) -> None:
    store = MemoryStore()
    store.faults.add(Fault("get_document", "*", error=StoreFailing("no")))
    with pytest.raises(StoreFailing, match="no"):
        await read_manifest(store, SnapshotId("0" * 64))


async def test_absence_is_told_in_the_words_of_the_user() -> None:
    absent = SnapshotId("0" * 64)
    with pytest.raises(SnapshotNotFound, match="memory://store has no snapshot 0000"):
        await read_manifest(MemoryStore(), absent)
    with pytest.raises(StoreMissing):
        await read_manifest(MemoryStore(exists=False), absent)
