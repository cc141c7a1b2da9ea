from __future__ import annotations

from pathlib import Path

import pytest

from snapd.actions.whence import PATHS_MAX, known_of, search_cache, search_store
from snapd.model.errors import StoreUnreachable
from snapd.model.ids import Digest, SnapshotId, digest_of
from snapd.model.layout import manifest_key
from snapd.model.lineage import NamedVersion, Names
from snapd.model.manifest import Entry, Manifest
from snapd.model.occurrences import Occurrence
from snapd.model.run_parts import Use
from snapd.model.runs import Run
from snapd.registry.names import Registry
from snapd.registry.pushes import Pushes
from snapd.registry.runs import Runs
from snapd.remote.base import Document
from snapd.remote.memory import MemoryStore
from tests.unit.model.registering import snapshot

WANTED = digest_of(b"wanted")


def manifest(*names: str, digest: Digest = WANTED) -> Manifest:
    entries = [Entry("D", 0o755, digest_of(b"d"), 0, "./")]
    entries += [Entry("F", 0o644, digest, 6, f"./{name}") for name in names]
    return Manifest.from_entries(entries)


HOLDER, OTHER = manifest("a", "b"), manifest("a", digest=digest_of(b"other"))


async def test_all_that_a_store_knows_of_a_snapshot() -> None:
    store = MemoryStore("memory://known")
    registry = Registry(store)
    used = (Use(snapshot("data")),)
    made = (Use(snapshot("model")),)
    await Runs(registry).record(
        Run("train", "2026-03-01T09:00:00Z", "ann@host", "c1", data=used, outputs=made)
    )
    await Pushes(registry.documents).add(
        "s3://b", snapshot("model"), now_ms=1000, by="ann@host", mark="m"
    )
    version = NamedVersion("model", "iris", "v1.0.0", snapshot("model"), "", "", "", run="other")
    known = await known_of(registry, Names([version]), snapshot("model"))
    assert known.versions == [version]
    assert (known.made_by, known.used_by) == (["train", "other"], [])
    assert [push.by for push in known.pushes] == ["ann@host"]
    assert known
    assert (await known_of(registry, Names([]), snapshot("data"))).used_by == ["train"]
    assert not await known_of(registry, Names([]), snapshot("nothing"))


async def test_a_content_is_found_in_manifests_of_a_store() -> None:
    store = MemoryStore("memory://search")
    for each in (HOLDER, OTHER):
        await store.put(manifest_key(each.id), each.text)
    damaged = snapshot("damaged")
    await store.put(manifest_key(damaged), HOLDER.text)
    asked = [HOLDER.id, OTHER.id, damaged, snapshot("absent")]
    found = await search_store(store, asked, WANTED)
    assert found.looked_through == 4
    assert [(each.snapshot_id, each.more) for each in found.holding] == [(HOLDER.id, False)]
    assert found.holding[0].found == [Occurrence("F", "./a"), Occurrence("F", "./b")]
    assert set(found.unreadable) == {damaged, snapshot("absent")}
    assert "damaged" in found.unreadable[damaged]


def test_a_content_is_found_in_manifests_of_a_cache(tmp_path: Path) -> None:
    many = manifest(*(str(number) for number in range(PATHS_MAX + 1)))
    for each in (many, OTHER):
        (tmp_path / each.id).write_bytes(each.text)
    found = search_cache(tmp_path, [many.id, OTHER.id, snapshot("absent")], WANTED)
    assert [(each.snapshot_id, len(each.found), each.more) for each in found.holding] == [
        (many.id, PATHS_MAX, True)
    ]
    assert list(found.unreadable) == [snapshot("absent")]


class _Unreachable(MemoryStore):
    async def get(self, key: str, *, limit_bytes: int) -> Document:
        raise StoreUnreachable(f"no route to {key} ({limit_bytes})")


async def test_a_store_that_is_away_is_an_error() -> None:
    asked = [SnapshotId(digest_of(bytes([number]))) for number in range(5)]
    with pytest.raises(StoreUnreachable):
        await search_store(_Unreachable("memory://away"), asked, WANTED)
