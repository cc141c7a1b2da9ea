from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from snapd.actions.presence import Presence, PushObjects, listed_keys_max
from snapd.actions.push import PushOptions, PushProgress, PushReport, push
from snapd.disk.walk import WalkOptions, walk
from snapd.model.errors import (
    ActionFailed,
    ConnectionLost,
    ManifestRefused,
    SnapshotNotFound,
    SourceChanged,
    StoreMissing,
    StoreUnreachable,
)
from snapd.model.exclude import Excludes
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.manifest import Manifest
from snapd.model.settings import TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.base import Operation, Put, PutOutcome
from snapd.remote.directory import DirectoryStore
from snapd.remote.memory import Fault, MemoryStore, Stall

SMALL = TransferSettings(
    objects_in_flight=8,
    batch_objects=4,
    batch_bytes=4096,
    bytes_in_flight=16384,
    large_object_bytes=10_000,
)
OPTIONS = PushOptions(walk=WalkOptions(jobs=1), transfer=SMALL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small and large files, the same content twice, a link and an empty file."""
    root = tmp_path / "source"
    (root / "d/e").mkdir(parents=True)
    for number in range(20):
        (root / f"d/f{number}").write_bytes(b"%d" % number * 100)
    (root / "d/same").write_bytes(b"3" * 100)
    (root / "large").write_bytes(os.urandom(50_000))
    (root / "empty").touch()
    (root / "link").symlink_to("large")
    return root


def keys(store: MemoryStore, prefix: str = "") -> set[str]:
    return {key for key in store.objects if key.startswith(prefix)}


def check_complete(store: MemoryStore, report: PushReport, source: Path) -> None:
    """The store has the manifest and every object, each with the right bytes."""
    text = store.objects[manifest_key(report.snapshot_id)]
    manifest = Manifest.parse(text, expected_id=report.snapshot_id)
    assert manifest.id == walk(source).manifest.id
    for entry in manifest:
        if entry.kind == "F":
            assert digest_of(store.objects[object_key(entry.checksum)]) == entry.checksum


def memory_store() -> MemoryStore:
    return MemoryStore(large_part_bytes=20_000)


def fill(store: MemoryStore, count: int = 30) -> None:
    """Give the store so many objects of others that it is looked into before anything is sent."""
    for number in range(count):
        store.objects[object_key(digest_of(b"other %d" % number))] = b""


async def test_push_stores_each_object_once_and_the_manifest_last(source: Path) -> None:
    store = memory_store()
    report = await push(store, source, OPTIONS)
    check_complete(store, report, source)
    assert (report.files, report.objects_total, report.objects_uploaded) == (24, 22, 22)
    assert (report.objects_present, report.objects_repaired) == (0, 0)
    assert report.bytes_uploaded == sum(map(len, store.objects.values())) - len(
        store.objects[manifest_key(report.snapshot_id)]
    )
    assert max(count for count in store.requests.values()) == 1
    written = [key for operation, key in store.requests if operation in ("put", "put_large")]
    assert written[-1] == manifest_key(report.snapshot_id)


async def test_second_push_of_the_same_uploads_nothing(source: Path) -> None:
    store = memory_store()
    first = await push(store, source, OPTIONS)
    before = dict(store.objects)
    again = await push(store, source, OPTIONS)
    assert again.snapshot_id == first.snapshot_id
    assert (again.objects_uploaded, again.objects_present) == (0, 22)
    assert store.objects == before
    manifest_puts = 2
    assert store.faults.count("put") == first.objects_total - 1 + manifest_puts


async def test_dryrun_tells_and_writes_nothing(source: Path) -> None:
    store = memory_store()
    report = await push(store, source, replace(OPTIONS, dryrun=True))
    assert report.objects_uploaded == 22
    assert report.snapshot_id == walk(source).manifest.id
    assert not store.objects


async def test_missing_and_truncated_objects_are_uploaded_again(source: Path) -> None:
    store = memory_store()
    report = await push(store, source, OPTIONS)
    large = object_key(digest_of((source / "large").read_bytes()))
    small = object_key(digest_of(b"3" * 100))
    store.objects[large] = store.objects[large][:-1]
    store.objects[small] = b""
    del store.objects[object_key(digest_of(b"4" * 100))]
    again = await push(store, source, OPTIONS)
    assert (again.objects_uploaded, again.objects_repaired) == (3, 2)
    check_complete(store, report, source)


async def test_verify_reads_again_and_repairs_what_has_the_right_size(source: Path) -> None:
    store = memory_store()
    await push(store, source, OPTIONS)
    for path in ("large", "d/f5"):
        key = object_key(digest_of((source / path).read_bytes()))
        store.objects[key] = bytes(len(store.objects[key]))
    trusting = await push(store, source, OPTIONS)
    assert trusting.objects_uploaded == 0
    report = await push(store, source, replace(OPTIONS, verify=True))
    assert (report.objects_uploaded, report.objects_repaired) == (2, 2)
    check_complete(store, report, source)


@pytest.mark.parametrize("damage", [b"", b"D 755", None])
async def test_damaged_manifest_is_rewritten(source: Path, damage: bytes | None) -> None:
    store = memory_store()
    report = await push(store, source, OPTIONS)
    key = manifest_key(report.snapshot_id)
    text = store.objects[key]
    store.objects[key] = bytes(len(text)) if damage is None else damage
    await push(store, source, OPTIONS)
    assert store.objects[key] == text


async def test_a_store_without_conditional_writes_takes_a_push(source: Path) -> None:
    store = memory_store()
    refusal = ActionFailed("this store has no conditional writes")
    store.faults.add(Fault("put_document", error=refusal))
    check_complete(store, await push(store, source, OPTIONS), source)


async def test_right_manifest_is_not_written_again(source: Path) -> None:
    store = memory_store()
    report = await push(store, source, OPTIONS)
    await push(store, source, OPTIONS)
    assert store.requests["put_document", manifest_key(report.snapshot_id)] == 0
    assert store.requests["get_document", manifest_key(report.snapshot_id)] == 1


async def test_parent_saves_the_requests_for_what_it_has(source: Path) -> None:
    store = memory_store()
    parent = (await push(store, source, OPTIONS)).snapshot_id
    heads = store.faults.count("head")
    (source / "new").write_bytes(b"new")
    report = await push(store, source, replace(OPTIONS, parent=parent))
    # The new object, and the parent's manifest before and after ours is written.
    assert store.faults.count("head") == heads + 1 + 2
    assert (report.objects_uploaded, report.objects_present) == (1, 22)
    check_complete(store, report, source)


async def test_parent_that_the_store_does_not_have(source: Path) -> None:
    store = memory_store()
    with pytest.raises(SnapshotNotFound) as missing:
        await push(store, source, replace(OPTIONS, parent=SnapshotId("0" * 64)))
    assert "0" * 64 in missing.value.message
    assert not store.objects


async def test_last_push_from_the_directory_is_remembered_as_parent(
    source: Path, tmp_path: Path
) -> None:
    store = memory_store()
    options = replace(OPTIONS, pushed_directory=tmp_path / "cache/pushed")
    await push(store, source, options)
    heads = store.faults.count("head")
    (source / "new").write_bytes(b"new")
    report = await push(store, source, options)
    assert store.faults.count("head") == heads + 1 + 2
    check_complete(store, report, source)
    # A remembered snapshot that the store lost is only a hint.
    for key in keys(store, ".manifests/"):
        del store.objects[key]
    (source / "newer").write_bytes(b"newer")
    check_complete(store, await push(store, source, options), source)


async def test_many_objects_are_looked_up_by_a_listing(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for number in range(1100):
        (root / f"{number}").write_bytes(b"%d" % number)
    store = memory_store()
    first = await push(store, root, OPTIONS)
    assert (store.faults.count("list"), store.faults.count("head")) == (1, 0)
    key = object_key(digest_of(b"77"))
    del store.objects[key]
    store.objects[object_key(digest_of(b"78"))] = b"damaged"
    again = await push(store, root, OPTIONS)
    assert (again.objects_uploaded, again.objects_repaired) == (2, 1)
    check_complete(store, first, root)


async def test_long_listing_is_left_and_the_rest_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for number in range(1000):
        (root / f"{number}").write_bytes(b"%d" % number)
    store = memory_store()
    await push(store, root, OPTIONS)
    for number in range(8000):
        store.objects[object_key(digest_of(b"other %d" % number))] = b""
    again = await push(store, root, OPTIONS)
    assert again.objects_uploaded == 0
    asked = store.faults.count("head")
    assert 300 < asked < 800


def make_many(root: Path, count: int) -> None:
    root.mkdir()
    for number in range(count):
        (root / f"{number}").write_bytes(b"%d" % number)


async def test_requests_of_a_second_push_go_by_what_changed(tmp_path: Path) -> None:
    make_many(tmp_path / "many", 2000)
    store = memory_store()
    options = replace(OPTIONS, pushed_directory=tmp_path / "pushed")
    await push(store, tmp_path / "many", options)
    before = sum(store.requests.values())
    for number in range(10):
        (tmp_path / f"many/{number}").write_bytes(b"changed %d" % number)
    report = await push(store, tmp_path / "many", options)
    assert report.objects_uploaded == 10
    # Ten looks and ten objects, a sample, the parent's manifest three times and our own.
    assert sum(store.requests.values()) - before <= 10 + 10 + 16 + 3 + 1
    check_complete(store, report, tmp_path / "many")


async def test_a_store_that_lost_objects_of_the_parent_is_looked_through(tmp_path: Path) -> None:
    make_many(tmp_path / "many", 1000)
    store = memory_store()
    options = replace(OPTIONS, pushed_directory=tmp_path / "pushed")
    await push(store, tmp_path / "many", options)
    objects = sorted(keys(store, ".objects/"))
    for key in objects[:900]:
        del store.objects[key]
    (tmp_path / "many/new").write_bytes(b"new")
    report = await push(store, tmp_path / "many", options)
    assert report.objects_uploaded == 901
    check_complete(store, report, tmp_path / "many")


@pytest.mark.parametrize("moment", ["finishing", "written"])
async def test_a_store_that_is_cleaned_meanwhile_is_given_everything_again(
    source: Path, moment: str
) -> None:
    store = memory_store()
    parent = (await push(store, source, OPTIONS)).snapshot_id
    (source / "new").write_bytes(b"new")

    def clean() -> None:
        # Whoever cleans takes the manifest first, then what no manifest holds any more.
        del store.objects[manifest_key(parent)]
        for key in keys(store, ".objects/"):
            del store.objects[key]

    def disturb(progress: PushProgress) -> None:
        if progress.step == "finishing" and manifest_key(parent) in store.objects:
            clean()

    if moment == "written":
        real = store.put_batch

        async def put_batch(puts: Sequence[Put]) -> list[PutOutcome]:
            outcomes = await real(puts)
            if puts[0].key.startswith(".manifests/") and manifest_key(parent) in store.objects:
                clean()
            return outcomes

        store.put_batch = put_batch  # type: ignore[method-assign]
        report = await push(store, source, replace(OPTIONS, parent=parent))
    else:
        report = await push(store, source, replace(OPTIONS, parent=parent), disturb)
    assert report.objects_uploaded == report.objects_total == 23
    check_complete(store, report, source)


async def test_now_and_then_everything_is_looked_at(source: Path, tmp_path: Path) -> None:
    store = memory_store()
    options = replace(OPTIONS, pushed_directory=tmp_path / "pushed")
    await push(store, source, options)
    lost = object_key(digest_of(b"3" * 100))
    del store.objects[lost]
    for number in range(16):
        (source / "new").write_bytes(b"%d" % number)
        await push(store, source, options)
        assert lost not in store.objects
    (source / "new").write_bytes(b"last")
    check_complete(store, await push(store, source, options), source)


def test_listing_is_for_many_objects() -> None:
    assert listed_keys_max(0) == listed_keys_max(999) == 0
    assert listed_keys_max(1000) == 4000


def change_content(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def change_mode(path: Path) -> None:
    path.chmod(0o600)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [change_content, append, replace_by_link, os.unlink])
@pytest.mark.parametrize("name", ["large", "d/f7", "empty"])
@pytest.mark.parametrize("step", ["looking", "finishing"])
async def test_source_that_changes_after_the_walk_fails_the_push(
    source: Path, change: Callable[[Path], None], name: str, step: str
) -> None:
    store = memory_store()
    report = await push(store, source, replace(OPTIONS, dryrun=True))
    if name == "empty" and change is change_content:
        change = change_mode

    disturbed: list[PushProgress] = []

    def disturb(progress: PushProgress) -> None:
        is_last = progress.step == "uploading" and progress.objects_done == report.objects_total
        if not disturbed and (progress.step == step or (step == "finishing" and is_last)):
            disturbed.append(progress)
            change(source / name)

    with pytest.raises(SourceChanged) as changed:
        await push(store, source, OPTIONS, disturb)
    assert name in changed.value.message or "link" in changed.value.message
    assert not keys(store, ".manifests/")
    for key, body in store.objects.items():
        assert key == object_key(digest_of(body))


async def test_large_file_that_changes_while_it_is_read_is_never_visible(source: Path) -> None:
    store = memory_store()
    large = source / "large"
    status = large.stat()

    def disturb(progress: PushProgress) -> None:
        if progress.step == "uploading" and 20_000 <= progress.bytes_done < 50_000:
            large.write_bytes(bytes(50_000))
            os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(SourceChanged):
        await push(store, source, OPTIONS, disturb)
    assert object_key(digest_of(bytes(50_000))) not in store.objects
    for key, body in store.objects.items():
        assert key == object_key(digest_of(body))


@pytest.mark.parametrize(
    ("operation", "key"),
    [
        ("list", "*"),
        ("head", "*"),
        ("put", ".objects/*"),
        ("put_large", "*"),
        ("put", ".manifests/*"),
    ],
)
async def test_failure_of_the_store_leaves_no_manifest(
    source: Path, operation: Operation, key: str
) -> None:
    store = memory_store()
    store.faults.add(Fault(operation, key, error=ConnectionLost("reset by peer")))
    if operation == "head":
        fill(store)
    with pytest.raises(ConnectionLost, match="reset by peer"):
        await push(store, source, OPTIONS)
    assert not keys(store, ".manifests/")


async def test_large_upload_is_repeated_once_from_the_start(source: Path) -> None:
    store = memory_store()
    store.faults.add(Fault("put_large", nth={1}, error=ConnectionLost("reset by peer")))
    last: list[PushProgress] = []
    report = await push(store, source, OPTIONS, last.append)
    check_complete(store, report, source)
    uploading = [progress for progress in last if progress.step == "uploading"]
    assert uploading[-1].bytes_done == uploading[-1].bytes_total == report.bytes_uploaded
    assert uploading[-1].objects_done == report.objects_uploaded


@pytest.mark.parametrize(
    ("operation", "key"),
    [
        ("list", "*"),
        ("head", "*"),
        ("put", ".objects/*"),
        ("put_large", "*"),
        ("put", ".manifests/*"),
    ],
)
async def test_cancelled_push_leaves_no_manifest(
    source: Path, operation: Operation, key: str
) -> None:
    store = memory_store()
    stall = Stall()
    store.faults.add(Fault(operation, key, stall=stall))
    if operation == "head":
        fill(store)
    descriptors = len(os.listdir("/proc/self/fd"))
    async with anyio.create_task_group() as group:
        group.start_soon(push, store, source, OPTIONS)
        await stall.reached.wait()
        group.cancel_scope.cancel()
    assert not keys(store, ".manifests/")
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


async def test_walk_is_cancelled_with_the_push(source: Path) -> None:
    store = memory_store()
    walked: list[PushProgress] = []
    with anyio.CancelScope() as scope:

        def stop(progress: PushProgress) -> None:
            walked.append(progress)
            anyio.from_thread.run_sync(scope.cancel)

        await push(store, source, OPTIONS, stop)
    assert scope.cancelled_caught
    assert {progress.step for progress in walked} == {"walking"}
    assert not store.requests


async def test_what_nobody_could_pull_is_not_pushed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapd.actions.read.MANIFEST_LIMIT_BYTES", 1000)
    store = memory_store()
    with pytest.raises(ManifestRefused, match="longer than 1000 B"):
        await push(store, source, OPTIONS)
    assert not keys(store, ".manifests/")


async def test_missing_bucket_is_told(source: Path) -> None:
    store = MemoryStore(exists=False)
    with pytest.raises(StoreMissing):
        await push(store, source, OPTIONS)


async def test_directory_store_is_made_by_the_first_push(source: Path, tmp_path: Path) -> None:
    store = DirectoryStore(parse_store_uri(f"file://{tmp_path}/new/store"), SMALL)
    report = await push(store, source, OPTIONS)
    (found,) = await store.head_batch([manifest_key(report.snapshot_id)])
    assert found is not None
    assert not isinstance(found, StoreUnreachable)
    again = await push(store, source, OPTIONS)
    assert (again.objects_uploaded, again.objects_present) == (0, report.objects_total)


async def test_excludes_and_links_go_by_the_options(source: Path) -> None:
    store = memory_store()
    excludes = Excludes.compile(["/d$"], home="/root", cache_dir="/nowhere")
    options = replace(OPTIONS, walk=WalkOptions(follow=False, excludes=excludes, jobs=1))
    report = await push(store, source, options)
    text = store.objects[manifest_key(report.snapshot_id)].decode()
    assert [line.split(" ", 4)[4] for line in text.splitlines()] == ["./", "./empty", "./large"]


def test_objects_are_found_by_digest_and_listed_by_path(source: Path) -> None:
    objects = PushObjects(walk(source))
    assert len(objects) == 22
    for index in range(len(objects)):
        assert objects.find(objects[index].digest) == index
    assert objects.find(digest_of(b"something else")) is None
    listed = [objects[index].path for index in objects.indexes(Presence.UNKNOWN)]
    assert listed == sorted(listed)
