from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest

from snapd.actions.presence import (
    Presence,
    PushObjects,
    batches_of,
    confirm_sample,
    list_few,
    listed_keys_max,
    look_up,
    read_again,
)
from snapd.disk.walk import walk
from snapd.model.errors import ConnectionLost
from snapd.model.ids import digest_of
from snapd.model.layout import object_key
from snapd.model.settings import TransferSettings
from snapd.remote.base import ObjectInfo
from snapd.remote.memory import Fault, MemoryStore

SETTINGS = TransferSettings(batch_objects=3, batch_bytes=100, objects_in_flight=6)


@pytest.fixture
def objects(tmp_path: Path) -> PushObjects:
    root = tmp_path / "r"
    root.mkdir()
    for size_bytes in (0, 1, 2, 40, 50, 60, 1000):
        (root / f"f{size_bytes:04d}").write_bytes(b"x" * size_bytes)
    (root / "copy").write_bytes(b"x")
    return PushObjects(walk(root))


def paths(objects: PushObjects, indexes: Sequence[int]) -> list[str]:
    return [objects[index].path for index in indexes]


def test_objects_are_distinct_and_in_the_order_of_their_digests(objects: PushObjects) -> None:
    digests = [objects[index].digest for index in range(len(objects))]
    assert len(digests) == 7
    assert digests == sorted(digests)
    assert paths(objects, objects.indexes(Presence.UNKNOWN))[0] == "./copy"


def test_batches_are_bounded_and_hold_one_object_at_least(objects: PushObjects) -> None:
    batches = list(batches_of(objects, objects.indexes(Presence.UNKNOWN), SETTINGS))
    assert [[objects.size_bytes(index) for index in batch] for batch in batches] == [
        [1, 0, 2],
        [40, 50],
        [60],
        [1000],
    ]


def test_size_decides_whether_an_object_is_trusted(objects: PushObjects) -> None:
    size_bytes = objects.size_bytes(0)
    for told, expected in (
        (size_bytes, Presence.PRESENT),
        (size_bytes + 1, Presence.DAMAGED),
        (None, Presence.ABSENT),
    ):
        objects.judge(0, told)
        assert objects.indexes(expected) == [0]


def test_listing_settles_what_it_has_passed(objects: PushObjects) -> None:
    objects.judge(1, objects.size_bytes(1))
    objects.judge_unlisted(objects[3].digest)
    assert list(objects.states) == [2, 1, 2, 2, 0, 0, 0]
    objects.judge_unlisted(None)
    assert list(objects.states) == [2, 1, 2, 2, 2, 2, 2]


def test_few_are_asked_for_and_many_listed() -> None:
    assert listed_keys_max(999) == 0
    assert listed_keys_max(100_000) == 400_000


@pytest.mark.parametrize(("has", "limit", "told"), [(0, 0, 0), (5, 5, 5), (6, 5, None)])
async def test_few_objects_are_listed_and_more_are_not(
    has: int, limit: int, told: int | None
) -> None:
    store = MemoryStore()
    for number in range(has):
        store.objects[object_key(digest_of(b"%d" % number))] = b""
    found = await list_few(store, limit)
    assert (found if found is None else len(found)) == told


async def test_the_first_page_tells_that_a_store_has_too_much() -> None:
    store = MemoryStore()
    for number in range(6000):
        store.objects[object_key(digest_of(b"%d" % number))] = b""
    pages = 0
    real = store.list

    async def counted(prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        nonlocal pages
        async with aclosing(real(prefix)) as listing:
            async for info in listing:
                pages += 1
                yield info

    store.list = counted  # type: ignore[method-assign]
    assert await list_few(store, 3000) is None
    assert pages == 1000


async def test_a_sample_finds_what_a_parent_does_not_hold(objects: PushObjects) -> None:
    store = MemoryStore()
    for index in range(len(objects)):
        store.objects[object_key(objects[index].digest)] = b"x" * objects.size_bytes(index)
        objects.states[index] = Presence.PRESENT
    taken = [*range(len(objects))] * 64
    assert await confirm_sample(store, objects, taken, Random(1))
    assert store.faults.count("head") > 0
    store.objects.clear()
    assert not await confirm_sample(store, objects, taken, Random(1))
    assert set(objects.states) == {Presence.UNKNOWN}


async def test_look_up_leaves_nothing_unknown(objects: PushObjects) -> None:
    store = MemoryStore()
    store.objects[object_key(digest_of(b"x"))] = b"x"
    store.objects[object_key(digest_of(b"xx"))] = b"x"
    await look_up(store, objects)
    assert paths(objects, objects.indexes(Presence.PRESENT)) == ["./copy"]
    assert paths(objects, objects.indexes(Presence.DAMAGED)) == ["./f0002"]
    assert len(objects.indexes(Presence.ABSENT)) == 5


async def test_reading_again_finds_damage_and_absence(objects: PushObjects) -> None:
    store = MemoryStore()
    for index in range(len(objects)):
        body = b"x" * objects.size_bytes(index)
        store.objects[object_key(objects[index].digest)] = body
        objects.judge(index, len(body))
    store.objects[object_key(digest_of(b"x" * 50))] = b"y" * 50
    del store.objects[object_key(digest_of(b""))]
    read: list[int] = []
    await read_again(store, objects, SETTINGS, read.append)
    assert paths(objects, objects.indexes(Presence.DAMAGED)) == ["./f0050"]
    assert paths(objects, objects.indexes(Presence.ABSENT)) == ["./f0000"]
    assert sum(read) == 1 + 2 + 40 + 60 + 1000


async def test_reading_again_fails_with_the_store(objects: PushObjects) -> None:
    store = MemoryStore(faults=None)
    objects.judge(0, objects.size_bytes(0))
    store.faults.add(Fault("get", error=ConnectionLost("reset by peer")))
    with pytest.raises(ConnectionLost):
        await read_again(store, objects, SETTINGS, lambda size_bytes: None)
