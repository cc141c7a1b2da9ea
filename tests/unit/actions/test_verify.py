"""Verify: every object of a store once, every file of a directory, all problems named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snapd.actions.verify import (
    PROBLEMS_SHOWN_MAX,
    VerifyProgress,
    VerifyReport,
    verify_directory,
    verify_snapshot,
)
from snapd.disk.walk import WalkOptions
from snapd.model.errors import (
    DigestMismatch,
    ManifestRefused,
    ObjectMissing,
    SnapshotNotFound,
    StoreFailing,
    TreeDiffers,
)
from snapd.model.ids import Digest, SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.manifest import Entry, Manifest
from snapd.model.settings import TransferSettings
from snapd.remote.memory import Fault, MemoryStore
from tests.trees import Files, make_tree

FILES: Files = {
    "a": (0o644, b"same"),
    "b/same, but executable": (0o755, b"same"),
    "b/empty": (0o644, b""),
    "c": (0o600, b"c" * 100_000),
}
SMALL_BATCHES = TransferSettings(objects_in_flight=4, batch_objects=2, batch_bytes=1000)


def stored(root: Path) -> tuple[MemoryStore, Manifest]:
    manifest = make_tree(root, FILES)
    store = MemoryStore()
    store.objects[manifest_key(manifest.id)] = manifest.text
    for _, content in FILES.values():
        store.objects[object_key(digest_of(content))] = content
    return store, manifest


async def verify(
    store: MemoryStore,
    snapshot_id: SnapshotId,
    on_progress: Callable[[VerifyProgress], None] = lambda _progress: None,
) -> VerifyReport:
    return await verify_snapshot(store, snapshot_id, SMALL_BATCHES, on_progress)


async def test_reads_each_distinct_object_once(tmp_path: Path) -> None:
    store, manifest = stored(tmp_path / "t")
    told: list[VerifyProgress] = []

    report = await verify(store, manifest.id, told.append)

    assert report == VerifyReport(manifest.id, "memory://store", 3, 100_004)
    assert sorted(key for _, key in store.faults.requests) == sorted(store.objects)
    assert set(store.faults.requests.values()) == {1}
    assert told[-1] == VerifyProgress(3, 3, 100_004, 100_004)


async def test_collects_missing_and_wrong_objects(tmp_path: Path) -> None:
    store, manifest = stored(tmp_path / "t")
    missing, wrong = digest_of(b"same"), digest_of(b"c" * 100_000)
    del store.objects[object_key(missing)]
    store.objects[object_key(wrong)] = b"d" * 100_000

    with pytest.raises(ObjectMissing, match=f"2 of 3 objects .* {missing} of ./a") as caught:
        await verify(store, manifest.id)

    details = caught.value.details
    assert int(caught.value.exit_code) == 12
    assert details["problems_total"] == 2
    assert {problem["path"]: problem["code"] for problem in details["problems"]} == {
        "./a": "object_missing",
        "./c": "digest_mismatch",
    }


async def test_shows_a_bounded_number_of_problems(tmp_path: Path) -> None:
    count = PROBLEMS_SHOWN_MAX + 20
    manifest = make_tree(
        tmp_path / "t", {f"{n:03}": (0o644, str(n).encode()) for n in range(count)}
    )
    store = MemoryStore()
    store.objects[manifest_key(manifest.id)] = manifest.text

    with pytest.raises(ObjectMissing) as caught:
        await verify(store, manifest.id)

    assert caught.value.details["problems_total"] == count
    assert len(caught.value.details["problems"]) == PROBLEMS_SHOWN_MAX


async def test_a_store_that_fails_is_not_a_damaged_snapshot(tmp_path: Path) -> None:
    store, manifest = stored(tmp_path / "t")
    key = object_key(digest_of(b"same"))
    store.faults.add(Fault("get", key=key, error=StoreFailing("the store says 500")))

    with pytest.raises(StoreFailing, match="500"):
        await verify(store, manifest.id)


async def test_an_unknown_id_names_the_store(tmp_path: Path) -> None:
    with pytest.raises(SnapshotNotFound, match="memory://store"):
        await verify(MemoryStore(), SnapshotId("0" * 64))


async def test_refuses_manifests_that_are_damaged_hostile_or_lie(tmp_path: Path) -> None:
    store, manifest = stored(tmp_path / "t")
    key = manifest_key(manifest.id)
    store.objects[key] = manifest.text + b"F"
    with pytest.raises(DigestMismatch):
        await verify(store, manifest.id)

    hostile = manifest.text.replace(b"./c", b"./../c")
    store.objects[manifest_key(SnapshotId(digest_of(hostile)))] = hostile
    with pytest.raises(ManifestRefused):
        await verify(store, SnapshotId(digest_of(hostile)))

    lying = Manifest.from_entries([Entry("D", 0o755, Digest("0" * 64), 0, "./")])
    store.objects[manifest_key(lying.id)] = lying.text
    with pytest.raises(TreeDiffers, match=r"\./"):
        await verify(store, lying.id)


def look(directory: Path, wanted: Manifest, *, known: bool = True) -> VerifyReport:
    return verify_directory(
        directory,
        wanted.id,
        WalkOptions(),
        lambda: wanted if known else None,
        lambda _progress: None,
    )


def test_a_directory_that_is_the_snapshot(tmp_path: Path) -> None:
    manifest = make_tree(tmp_path / "t", FILES)
    (tmp_path / "link").symlink_to("t")

    for path in (tmp_path / "t", tmp_path / "link"):
        report = look(path, manifest)
        assert report == VerifyReport(manifest.id, str(path), 4, 100_008)


def test_a_directory_that_differs_names_the_differences(tmp_path: Path) -> None:
    manifest = make_tree(tmp_path / "t", FILES)
    (tmp_path / "t" / "a").write_bytes(b"SAME")
    (tmp_path / "t" / "c").unlink()
    (tmp_path / "t" / "new").mkdir()

    with pytest.raises(TreeDiffers, match=r"3 differences, the first is M \./a") as caught:
        look(tmp_path / "t", manifest)

    assert caught.value.details["differences"] == [
        {"status": "M", "path": "./a"},
        {"status": "D", "path": "./c"},
        {"status": "A", "path": "./new/"},
    ]
    with pytest.raises(TreeDiffers, match=f"not {manifest.id}$"):
        look(tmp_path / "t", manifest, known=False)
