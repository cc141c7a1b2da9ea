from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import pytest

from snapd.actions.presence import PushObjects
from snapd.actions.upload import LargeObject, SmallObject, UploadListener, open_uploads
from snapd.disk.source import open_source
from snapd.disk.walk import walk
from snapd.model.errors import ConnectionLost, SourceChanged
from snapd.model.ids import Digest, digest_of
from snapd.model.layout import object_key
from snapd.model.settings import TransferSettings
from snapd.remote.memory import Fault, MemoryStore, Stall

SETTINGS = TransferSettings(objects_in_flight=4, bytes_in_flight=100)


class Listener(UploadListener):
    def __init__(self) -> None:
        self.size_bytes = 0
        self.objects: dict[str, bool] = {}

    def on_bytes(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes

    def on_object(self, digest: Digest, *, existed: bool) -> None:
        self.objects[digest] = existed


def small(body: bytes, *, if_absent: bool = True) -> SmallObject:
    return SmallObject(digest_of(body), len(body), lambda: body, if_absent)


async def test_objects_arrive_and_are_told_of() -> None:
    store, listener = MemoryStore(), Listener()
    store.objects[object_key(digest_of(b"there"))] = b"there"
    async with open_uploads(store, SETTINGS, listener) as uploads:
        await uploads.put_small([small(b"new"), small(b"there")])
    assert store.objects[object_key(digest_of(b"new"))] == b"new"
    assert listener.objects == {digest_of(b"new"): False, digest_of(b"there"): True}
    assert listener.size_bytes == 8


async def test_no_more_is_begun_than_there_is_room_for() -> None:
    store, stall = MemoryStore(), Stall()
    store.faults.add(Fault("put", stall=stall))
    begun = 0
    async with anyio.create_task_group() as group:

        async def run() -> None:
            nonlocal begun
            async with open_uploads(store, SETTINGS, Listener()) as uploads:
                for number in range(10):
                    await uploads.put_small([small(b"%d" % number * 30)])
                    begun += 1

        group.start_soon(run)
        await stall.reached.wait()
        await anyio.wait_all_tasks_blocked()
        assert begun == 3
        group.cancel_scope.cancel()


async def test_the_first_failure_ends_the_block_and_is_raised_bare() -> None:
    store = MemoryStore()
    store.faults.add(Fault("put", error=ConnectionLost("reset by peer")))
    with pytest.raises(ConnectionLost):
        async with open_uploads(store, SETTINGS, Listener()) as uploads:
            await uploads.put_small([small(b"new")])
            await anyio.sleep_forever()


async def test_an_error_of_the_block_is_raised_bare() -> None:
    with pytest.raises(SourceChanged):
        async with open_uploads(MemoryStore(), SETTINGS, Listener()):
            raise SourceChanged("changed")


async def test_a_large_object_is_sent_once_more_and_counted_once(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/large").write_bytes(b"x" * 50_000)
    tree = walk(tmp_path / "r")
    store, listener = MemoryStore(large_part_bytes=20_000), Listener()
    store.faults.add(Fault("put_large", nth={1}, error=ConnectionLost("reset by peer")))
    item = PushObjects(tree)[0]
    with open_source(tree) as source:
        async with open_uploads(store, SETTINGS, listener) as uploads:
            await uploads.put_large(LargeObject(item, partial(source.reader, item), True))
    assert store.objects[object_key(item.digest)] == b"x" * 50_000
    assert (listener.size_bytes, listener.objects) == (50_000, {item.digest: False})
