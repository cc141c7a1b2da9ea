from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from snapd.actions.push import PushOptions, push
from snapd.disk import source as disk_source
from snapd.disk.walk import WalkOptions, walk
from snapd.model.errors import ConnectionLost, SourceChanged
from snapd.model.ids import digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.settings import TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.directory import DirectoryStore
from snapd.remote.memory import Fault, MemoryStore, Stall

SETTINGS = TransferSettings(
    objects_in_flight=8,
    batch_objects=4,
    batch_bytes=4096,
    bytes_in_flight=16384,
    large_object_bytes=2_000_000,
)
OPTIONS = PushOptions(walk=WalkOptions(jobs=1), transfer=SETTINGS)
MEDIUM_BYTES = 1_500_000
LARGE_BYTES = 5_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(30):
        (root / f"f{number:02}").write_bytes(b"%d" % (number // 2))
    (root / "medium").write_bytes(os.urandom(MEDIUM_BYTES))
    (root / "large").write_bytes(os.urandom(LARGE_BYTES))
    (root / "link").symlink_to("large")
    return root


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []
    real = disk_source.SourceReader.check_end

    def check_end(reader: disk_source.SourceReader) -> None:
        opened.append(reader._item.path)
        real(reader)

    monkeypatch.setattr(disk_source.SourceReader, "check_end", check_end)
    return opened


async def test_what_an_empty_store_is_given_is_read_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    opened = count_reads(monkeypatch)
    report = await push(store, root, OPTIONS)
    assert report.objects_uploaded == report.objects_total == 15 + 2
    assert sorted(opened) in (["./large", "./medium"], ["./link", "./medium"])
    assert store.faults.count("head") == 0
    assert store.faults.count("list") == 1
    for path in ("medium", "large", "f07"):
        body = (root / path).read_bytes()
        assert store.objects[object_key(digest_of(body))] == body


async def test_a_store_that_has_more_is_looked_into_first(root: Path) -> None:
    store = MemoryStore()
    for number in range(40):
        store.objects[object_key(digest_of(b"other %d" % number))] = b""
    report = await push(store, root, OPTIONS)
    assert report.objects_uploaded == 17
    assert store.faults.count("head") == 17


async def test_what_is_listed_is_not_sent_and_what_is_damaged_is_repaired(root: Path) -> None:
    store = MemoryStore()
    kept, damaged = object_key(digest_of(b"3")), object_key(digest_of(b"4"))
    store.objects |= {kept: b"3", damaged: b"too long"}
    report = await push(store, root, OPTIONS)
    assert (report.objects_present, report.objects_repaired) == (1, 1)
    assert store.objects[damaged] == b"4"
    assert store.requests["put", kept] == 0


async def test_a_directory_store_keeps_what_it_has_and_repairs_it(
    root: Path, tmp_path: Path
) -> None:
    store = DirectoryStore(parse_store_uri(f"file://{tmp_path}/store"), SETTINGS)
    first = await push(store, root, OPTIONS)
    assert first.objects_uploaded == 17
    damaged = tmp_path / "store" / object_key(digest_of(b"4"))
    damaged.chmod(0o600)
    damaged.write_bytes(b"too long")
    again = await push(store, root, OPTIONS)
    assert (again.objects_uploaded, again.objects_repaired) == (1, 1)
    assert damaged.read_bytes() == b"4"


async def test_a_failure_while_hashing_ends_the_push_at_once(root: Path) -> None:
    store = MemoryStore()
    store.faults.add(Fault("put", ".objects/*", error=ConnectionLost("reset by peer")))
    with pytest.raises(ConnectionLost):
        await push(store, root, OPTIONS)
    assert not any(key.startswith(".manifests/") for key in store.objects)


async def test_a_stalled_store_holds_the_walk_up_and_lets_it_be_cancelled(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for number in range(100):
        (root / f"{number}").write_bytes(b"%d" % number)
    store = MemoryStore()
    stall = Stall()
    store.faults.add(Fault("put", stall=stall))
    descriptors = len(os.listdir("/proc/self/fd"))
    async with anyio.create_task_group() as group:
        group.start_soon(push, store, root, OPTIONS)
        await stall.reached.wait()
        group.cancel_scope.cancel()
    assert sum(key[0] == "put" for key in store.requests) <= SETTINGS.objects_in_flight
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


async def test_a_large_file_that_changes_after_it_was_hashed_is_not_sent(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    real = disk_source.open_content

    def open_changed(*arguments: object, **named: object) -> disk_source.SourceReader:
        with (root / "large").open("ab") as file:
            file.write(b"more")
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("snapd.actions.forward.open_content", open_changed)
    with pytest.raises(SourceChanged):
        await push(store, root, OPTIONS)
    assert not any(key.startswith(".manifests/") for key in store.objects)
    for key, body in store.objects.items():
        assert key == object_key(digest_of(body))


async def test_a_stat_cache_keeps_nothing_from_being_uploaded(root: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, walk=WalkOptions(jobs=1, stat_cache_dir=f"{tmp_path}/stat"))
    walk(root, options.walk)
    store = MemoryStore()
    report = await push(store, root, options)
    assert report.objects_uploaded == 17
    assert manifest_key(report.snapshot_id) in store.objects
    assert len(store.objects) == 18
