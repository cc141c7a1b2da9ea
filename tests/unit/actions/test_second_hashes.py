from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from snapd.actions.second_hashes import (
    SecondHashes,
    TwinSink,
    hash_directory,
    hash_stored,
    hash_tree,
)
from snapd.disk.walk import WalkOptions, WalkProgress
from snapd.model.errors import DigestMismatch, ObjectMissing, TreeDiffers
from snapd.model.file_lists import FileRow
from snapd.model.ids import digest_of
from snapd.model.layout import object_key
from snapd.model.settings import TransferSettings
from snapd.remote.memory import MemoryStore
from tests.samples import sample
from tests.trees import Files, make_tree

FILES: Files = {
    "a": (0o644, b"same"),
    "b/again": (0o755, b"same"),
    "b/empty": (0o644, b""),
    "c": (0o644, b"c" * 100_000),
}
SMALL_BATCHES = TransferSettings(objects_in_flight=4, batch_objects=2, batch_bytes=1000)
ROWS = [
    FileRow(name, len(data), sha256(data).digest(), bytes.fromhex(digest_of(data)))
    for name, (_, data) in FILES.items()
]


def quiet(_progress: WalkProgress) -> None:
    pass


def in_memory() -> tuple[MemoryStore, Sequence[FileRow]]:
    store = MemoryStore()
    store.objects.update(SAMPLE.keys())
    return store, ROWS


SAMPLE = sample({name: data for name, (_, data) in FILES.items()}, modes={"b/again": 0o755})


def test_a_directory_gives_both_hashes_and_the_size_of_what_a_link_leads_to(
    tmp_path: Path,
) -> None:
    make_tree(tmp_path / "t", FILES)
    (tmp_path / "t/d").symlink_to("c")
    hashed = hash_directory(tmp_path / "t", WalkOptions(sha256=True), quiet)
    assert list(hashed.rows()) == [*ROWS, ROWS[-1]._replace(path="d")]
    assert hashed.inodes is not None
    assert (tmp_path / "t/a").stat().st_ino in hashed.inodes
    plain = hash_directory(tmp_path / "t", WalkOptions(), quiet)
    assert {row.sha256 for row in plain.rows()} == {b""}


def test_a_tree_of_a_cache_has_the_hashes_whatever_its_directories_modes(tmp_path: Path) -> None:
    manifest = make_tree(tmp_path / "t", FILES)
    (tmp_path / "t/b").chmod(0o555)
    try:
        assert list(hash_tree(tmp_path / "t", manifest, quiet).rows()) == ROWS
    finally:
        (tmp_path / "t/b").chmod(0o755)


@pytest.mark.parametrize("fault", ["changed", "missing", "extra"])
def test_a_tree_that_is_not_the_snapshot_has_none(tmp_path: Path, fault: str) -> None:
    manifest = make_tree(tmp_path / "t", FILES)
    if fault == "changed":
        (tmp_path / "t/b/empty").write_bytes(b"1")
    elif fault == "missing":
        (tmp_path / "t/b/empty").unlink()
    else:
        (tmp_path / "t/b/efoo").write_bytes(b"1")
    with pytest.raises(TreeDiffers, match=r"\./b/e"):
        hash_tree(tmp_path / "t", manifest, quiet)


async def test_a_stores_objects_are_read_once_for_both() -> None:
    store, rows = in_memory()
    hashed = await hash_stored(store, SAMPLE.manifest, SMALL_BATCHES, lambda _: None)
    assert list(hashed.rows()) == list(rows)
    assert list(hashed.rows()) == list(rows)


async def test_wrong_and_missing_objects_get_no_second_hash() -> None:
    store, _ = in_memory()
    store.objects[object_key(digest_of(b"same"))] = b"SAME"
    with pytest.raises(DigestMismatch):
        await hash_stored(store, SAMPLE.manifest, SMALL_BATCHES, lambda _: None)
    del store.objects[object_key(digest_of(b"same"))]
    with pytest.raises(ObjectMissing):
        await hash_stored(store, SAMPLE.manifest, SMALL_BATCHES, lambda _: None)


def test_an_attempt_that_came_to_nothing_leaves_nothing() -> None:
    hashes = SecondHashes(SAMPLE.manifest)
    sink = TwinSink(digest_of(b"same"), "./a", "memory://store", hashes)
    sink.start()
    sink.write(b"sa")
    sink.start()
    sink.write(b"sam")
    sink.write(memoryview(b"e"))
    sink.finish()
    first = next(iter(hashes.rows(SAMPLE.manifest)))
    assert first == ROWS[0]
