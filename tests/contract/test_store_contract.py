"""The contract of `snapd.remote.base`, checked on every backend and every wrapper."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from itertools import product
from random import Random

import anyio
import anyio.to_thread
import pytest

from snapd.model.errors import (
    ConditionFailed,
    DigestMismatch,
    InternalError,
    KeyMissing,
    NoSpace,
    SnapsyncError,
    SourceChanged,
    StoreFailing,
    StoreMissing,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import MANIFESTS_PREFIX, OBJECTS_PREFIX, manifest_key, object_key
from snapd.remote.base import (
    IF_ABSENT,
    ByteRange,
    Condition,
    Get,
    Got,
    ObjectInfo,
    Put,
    RemoteStore,
    Stored,
)
from tests.contract.places import Place
from tests.contract.sinks import GatedSink, RecordingSink, TwoFacedSink, body_of, read, read_all

pytestmark = pytest.mark.usefixtures("event_loop_never_blocks")

MIB = 1024 * 1024
LARGE_BYTES = 17 * MIB + 3
ODD_KEYS = [
    "odd/a b",
    "odd/ leading",
    "odd/a+b",
    "odd/50%",
    "odd/a%2Fb",
    "odd/a%20b",
    "odd/ü",
    "odd/u\u0308",
    "odd/日本/x",
    "odd/a&b=c?d#e;f",
    "odd/~'(!)*,:@$",
    'odd/"<>^`{|}[]',  # no backslash: SeaweedFS takes it for a slash
]


def bytes_of(size_bytes: int, seed: int = 0) -> bytes:
    return Random(f"{seed} {size_bytes}").randbytes(size_bytes)


def put_of(key: str, body: bytes, *, if_absent: bool = True) -> Put:
    return Put(key, lambda: body, len(body), if_absent)


async def put_all(store: RemoteStore, bodies: dict[str, bytes]) -> None:
    outcomes = await store.put_batch([put_of(key, body) for key, body in bodies.items()])
    for outcome in outcomes:
        assert isinstance(outcome, Stored), outcome


async def parts_of(body: bytes, part_bytes: int) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), part_bytes):
        yield body[begin : begin + part_bytes]


async def keys_of(store: RemoteStore, prefix: str) -> list[str]:
    return [info.key async for info in store.list(prefix)]


async def head(store: RemoteStore, key: str) -> ObjectInfo | None:
    outcome = (await store.head_batch([key]))[0]
    if isinstance(outcome, SnapsyncError):
        raise outcome
    return outcome


# Bodies


async def test_small_objects_come_back_as_they_went(store: RemoteStore) -> None:
    bodies = {f"t/{size}": bytes_of(size) for size in (0, 1, 4095, 4096, 4097, MIB, MIB + 1)}
    await put_all(store, bodies)
    assert await read_all(store, list(bodies)) == list(bodies.values())


async def test_a_large_object_comes_back_as_it_went(store: RemoteStore) -> None:
    body = bytes_of(LARGE_BYTES)
    parts = parts_of(body, store.large_part_bytes)
    stored = await store.put_large("t/large", parts, size_bytes=len(body))
    assert not stored.existed
    assert digest_of(await read(store, "t/large")) == digest_of(body)
    info = await head(store, "t/large")
    assert info is not None
    assert info.size_bytes == LARGE_BYTES


async def test_a_sink_is_started_written_in_order_and_finished_in_one_thread(
    store: RemoteStore,
) -> None:
    body = bytes_of(MIB)
    await put_all(store, {"t/a": body})
    sink = RecordingSink()
    assert await store.get_batch([Get("t/a", sink)]) == [Got(MIB)]
    assert sink.body == body
    assert sink.calls == ["start", *["write"] * (len(sink.calls) - 2), "finish"]
    assert len(sink.threads) == 1
    assert sink.threads != {threading.get_ident()}


async def test_a_sink_that_is_used_again_is_started_again(store: RemoteStore) -> None:
    await put_all(store, {"t/a": b"first", "t/b": b"second"})
    sink = RecordingSink()
    await store.get_batch([Get("t/a", sink)])
    await store.get_batch([Get("t/b", sink)])
    assert sink.starts == 2
    assert sink.body == b"second"


async def test_keys_of_the_format_hold_objects_and_manifests(store: RemoteStore) -> None:
    body = b"content"
    keys = [object_key(digest_of(body)), manifest_key(SnapshotId("ab" * 32))]
    await put_all(store, dict.fromkeys(keys, body))
    assert await read_all(store, keys) == [body, body]
    assert await keys_of(store, OBJECTS_PREFIX) == keys[:1]
    assert await keys_of(store, MANIFESTS_PREFIX) == keys[1:]


async def test_keys_with_odd_characters(store: RemoteStore) -> None:
    bodies = {key: key.encode() for key in ODD_KEYS}
    await put_all(store, bodies)
    assert await read_all(store, ODD_KEYS) == list(bodies.values())
    assert [await head(store, key) is not None for key in ODD_KEYS] == [True] * len(ODD_KEYS)
    assert await keys_of(store, "odd/") == sorted(ODD_KEYS, key=str.encode)
    for key in ODD_KEYS:
        await store.put(key, b"document " + key.encode())
        document = await store.get(key, limit_bytes=1000)
        assert document.data == b"document " + key.encode()
        await store.delete(key)
    assert await keys_of(store, "odd/") == []


async def test_a_sink_with_two_faces_gets_the_same_by_either(store: RemoteStore) -> None:
    sizes = (0, 1, TwoFacedSink.limit_bytes, TwoFacedSink.limit_bytes + 1)
    bodies = {f"{key}{size}": bytes_of(size) for key, size in product(ODD_KEYS, sizes)}
    await put_all(store, bodies)
    sinks = [TwoFacedSink() for _ in bodies]
    gets = [Get(key, sink, None, 0, sink) for key, sink in zip(bodies, sinks, strict=True)]
    assert await store.get_batch(gets) == [Got(len(body)) for body in bodies.values()]
    assert [sink.body for sink in sinks] == list(bodies.values())
    assert all(sink.starts == 1 and sink.finished for sink in sinks)
    sink = TwoFacedSink()
    [outcome] = await store.get_batch([Get("t/absent", sink, None, 0, sink)])
    assert isinstance(outcome, KeyMissing)


# Ranges


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 1, 1),
        (0, 10_000, 10_000),
        (4095, 2, 2),
        (9_999, 1, 1),
        (9_999, 50, 1),
        (0, 99_999, 10_000),
    ],
)
async def test_a_range_is_cut_at_the_end(
    store: RemoteStore, offset: int, length: int, expected: int
) -> None:
    body = bytes_of(10_000)
    await put_all(store, {"t/a": body})
    sink = RecordingSink()
    [outcome] = await store.get_batch([Get("t/a", sink, ByteRange(offset, length))])
    assert body_of(outcome, sink) == body[offset : offset + length]
    assert outcome == Got(expected)


@pytest.mark.parametrize(("size_bytes", "offset"), [(10, 10), (10, 11), (0, 0)])
async def test_a_range_behind_the_end_is_missing(
    store: RemoteStore, size_bytes: int, offset: int
) -> None:
    await put_all(store, {"t/a": bytes_of(size_bytes)})
    sink = RecordingSink()
    [outcome] = await store.get_batch([Get("t/a", sink, ByteRange(offset, 1))])
    assert isinstance(outcome, KeyMissing)
    assert outcome.details.get("size_bytes", size_bytes) == size_bytes
    assert "finish" not in sink.calls


async def test_ranges_of_one_object_side_by_side(store: RemoteStore) -> None:
    body = bytes_of(3 * MIB + 7)
    await put_all(store, {"t/a": body})
    offsets = range(0, len(body), MIB)
    sinks = [RecordingSink() for _ in offsets]
    gets = [Get("t/a", s, ByteRange(o, MIB)) for s, o in zip(sinks, offsets, strict=True)]
    outcomes = await store.get_batch(gets)
    assert b"".join(body_of(o, s) for o, s in zip(outcomes, sinks, strict=True)) == body


# Absence


async def test_an_absent_key(store: RemoteStore) -> None:
    await put_all(store, {"t/here": b"x"})
    with pytest.raises(KeyMissing, match="t/absent"):
        await read(store, "t/absent")
    with pytest.raises(KeyMissing, match="t/absent"):
        await store.get("t/absent", limit_bytes=100)
    assert await head(store, "t/absent") is None
    assert await keys_of(store, "t/absent") == []
    await store.delete("t/absent")
    assert await keys_of(store, "t/") == ["t/here"]


async def test_a_missing_store_is_not_an_empty_one(missing: RemoteStore) -> None:
    with pytest.raises(StoreMissing):
        await read(missing, "t/a")
    with pytest.raises(StoreMissing):
        await missing.get("t/a", limit_bytes=100)
    with pytest.raises(StoreMissing):
        await head(missing, "t/a")
    with pytest.raises(StoreMissing):
        await keys_of(missing, "")


# Batches


async def test_empty_batches(store: RemoteStore) -> None:
    assert await store.get_batch([]) == []
    assert await store.head_batch([]) == []
    assert await store.put_batch([]) == []


async def test_outcomes_stand_in_the_order_of_the_items(store: RemoteStore) -> None:
    bodies = {f"t/{i:03}": bytes_of(i * 37, i) for i in range(0, 200, 2)}
    await put_all(store, bodies)
    keys = [f"t/{i:03}" for i in reversed(range(200))]
    sinks = [RecordingSink() for _ in keys]
    outcomes = await store.get_batch([Get(k, s) for k, s in zip(keys, sinks, strict=True)])
    looked_at = await store.head_batch(keys)
    for key, sink, outcome, info in zip(keys, sinks, outcomes, looked_at, strict=True):
        if key in bodies:
            assert body_of(outcome, sink) == bodies[key]
            assert isinstance(info, ObjectInfo)
            assert (info.key, info.size_bytes) == (key, len(bodies[key]))
        else:
            assert isinstance(outcome, KeyMissing)
            assert key in outcome.message
            assert info is None
            assert "finish" not in sink.calls


@pytest.mark.parametrize("fails_in", ["start", "write", "finish"])
async def test_an_error_of_a_sink_stays_with_its_item(store: RemoteStore, fails_in: str) -> None:
    await put_all(store, {f"t/{i}": bytes_of(5000, i) for i in range(3)})
    error = DigestMismatch("t/1: wrong bytes")
    bad = RecordingSink(fails_in=fails_in, error=error)
    good = [RecordingSink(), RecordingSink()]
    outcomes = await store.get_batch([Get("t/0", good[0]), Get("t/1", bad), Get("t/2", good[1])])
    assert outcomes == [Got(5000), error, Got(5000)]
    assert bad.starts == 1
    assert bad.calls[-1] == fails_in
    assert [sink.body for sink in good] == [bytes_of(5000, 0), bytes_of(5000, 2)]


async def test_a_full_disk_in_a_sink_is_that_items_outcome(store: RemoteStore) -> None:
    await put_all(store, {"t/a": bytes_of(100)})
    error = NoSpace("/cache: No space left on device")
    sink = RecordingSink(fails_in="write", error=error)
    assert await store.get_batch([Get("t/a", sink)]) == [error]


async def test_a_defect_in_a_sink_or_a_source_is_an_internal_error(store: RemoteStore) -> None:
    await put_all(store, {"t/a": bytes_of(100)})

    def load() -> bytes:
        raise ValueError("defect of load")

    sink = RecordingSink(fails_in="finish", error=ValueError("defect of a sink"))
    [got] = await store.get_batch([Get("t/a", sink)])
    [put] = await store.put_batch([Put("t/b", load, 10)])
    assert isinstance(got, InternalError)
    assert isinstance(put, InternalError)
    assert "t/a" in got.message
    assert "defect of a sink" in got.message
    assert "t/b" in put.message
    assert await head(store, "t/b") is None


async def test_an_error_of_a_source_stays_with_its_item(store: RemoteStore) -> None:
    error = SourceChanged("/data/1 changed")

    def load() -> bytes:
        raise error

    puts = [put_of("t/0", b"0"), Put("t/1", load, 1), put_of("t/2", b"2")]
    outcomes = await store.put_batch(puts)
    assert isinstance(outcomes[0], Stored)
    assert outcomes[1] == error
    assert isinstance(outcomes[2], Stored)
    assert await keys_of(store, "t/") == ["t/0", "t/2"]


# Writing objects


async def test_an_existing_object_is_left_alone_unless_told(store: RemoteStore) -> None:
    assert await store.put_batch([put_of("t/a", b"first")]) != []
    [again] = await store.put_batch([put_of("t/a", b"other")])
    assert isinstance(again, Stored)
    assert again.existed
    assert await read(store, "t/a") == b"first"
    [over] = await store.put_batch([put_of("t/a", b"repaired", if_absent=False)])
    assert isinstance(over, Stored)
    assert not over.existed
    assert await read(store, "t/a") == b"repaired"


async def test_of_many_who_create_an_object_one_is_told_that_it_did(place: Place) -> None:
    created: list[bool] = []

    async def create(store: RemoteStore) -> None:
        [outcome] = await store.put_batch([put_of("t/a", b"same bytes")])
        assert isinstance(outcome, Stored)
        created.append(not outcome.existed)

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(place.open()) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for i in range(9):
                group.start_soon(create, stores[i % 3])
        assert Counter(created) == {True: 1, False: 8}
        assert await read(stores[0], "t/a") == b"same bytes"


async def test_a_large_object_is_invisible_until_it_is_whole(store: RemoteStore) -> None:
    body = bytes_of(store.large_part_bytes + 10)
    seen: list[object] = []

    async def parts() -> AsyncIterator[bytes]:
        async for part in parts_of(body, store.large_part_bytes):
            yield part
            seen.append(await head(store, "t/large"))
            seen.extend(await keys_of(store, "t/"))

    await store.put_large("t/large", parts(), size_bytes=len(body))
    assert seen == [None, None]
    assert await keys_of(store, "t/") == ["t/large"]


async def test_a_large_object_is_left_alone_if_it_exists(store: RemoteStore) -> None:
    await put_all(store, {"t/large": b"first"})
    body = bytes_of(store.large_part_bytes + 10)
    stored = await store.put_large(
        "t/large", parts_of(body, store.large_part_bytes), size_bytes=len(body)
    )
    assert stored.existed
    assert await read(store, "t/large") == b"first"
    stored = await store.put_large(
        "t/large",
        parts_of(body, store.large_part_bytes),
        size_bytes=len(body),
        if_absent=False,
    )
    assert not stored.existed
    assert await read(store, "t/large") == body


async def test_a_large_object_whose_source_fails_is_not_visible(store: RemoteStore) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield bytes_of(store.large_part_bytes)
        raise SourceChanged("/data/large changed")

    with pytest.raises(SourceChanged, match="/data/large"):
        await store.put_large("t/large", parts(), size_bytes=store.large_part_bytes + 10)
    assert await head(store, "t/large") is None


@pytest.mark.parametrize("lacking_bytes", [1, -1])
async def test_a_large_object_of_another_size_is_not_visible(
    store: RemoteStore, lacking_bytes: int
) -> None:
    body = bytes_of(store.large_part_bytes + 10)
    parts = parts_of(body, store.large_part_bytes)
    with pytest.raises(SourceChanged, match="t/large"):
        await store.put_large("t/large", parts, size_bytes=len(body) + lacking_bytes)
    assert await head(store, "t/large") is None


async def test_a_large_object_that_is_cancelled_is_not_visible(store: RemoteStore) -> None:
    asked = anyio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield bytes_of(store.large_part_bytes)
        asked.set()
        await anyio.sleep_forever()

    async def put() -> None:
        size_bytes = store.large_part_bytes + 10
        await store.put_large("t/large", parts(), size_bytes=size_bytes)

    async with anyio.create_task_group() as group:
        group.start_soon(put)
        await asked.wait()
        group.cancel_scope.cancel()
    assert await head(store, "t/large") is None
    assert await keys_of(store, "") == []


# Documents


async def test_a_document_is_written_read_and_removed(store: RemoteStore) -> None:
    stored = await store.put("t/doc", b"one")
    document = await store.get("t/doc", limit_bytes=3)
    assert (document.data, document.etag) == (b"one", stored.etag)
    changed = await store.put("t/doc", b"two")
    assert changed.etag != stored.etag
    assert (await store.get("t/doc", limit_bytes=3)).data == b"two"
    await store.delete("t/doc")
    with pytest.raises(KeyMissing):
        await store.get("t/doc", limit_bytes=3)


async def test_an_empty_document(store: RemoteStore) -> None:
    await store.put("t/doc", b"")
    assert (await store.get("t/doc", limit_bytes=0)).data == b""


async def test_a_document_that_is_too_large_is_refused(store: RemoteStore) -> None:
    await store.put("t/doc", bytes_of(1001))
    with pytest.raises(StoreFailing, match="t/doc") as caught:
        await store.get("t/doc", limit_bytes=1000)
    assert caught.value.details["limit_bytes"] == 1000


async def test_a_document_is_created_once(store: RemoteStore) -> None:
    await store.put("t/doc", b"one", IF_ABSENT)
    with pytest.raises(ConditionFailed, match="t/doc"):
        await store.put("t/doc", b"two", IF_ABSENT)
    assert (await store.get("t/doc", limit_bytes=10)).data == b"one"


async def test_a_document_changes_only_from_the_state_that_was_read(store: RemoteStore) -> None:
    first = await store.put("t/doc", b"one")
    second = await store.put("t/doc", b"two", Condition("if_match", first.etag))
    with pytest.raises(ConditionFailed, match="t/doc"):
        await store.put("t/doc", b"three", Condition("if_match", first.etag))
    assert (await store.get("t/doc", limit_bytes=10)).etag == second.etag
    await store.delete("t/doc")
    with pytest.raises(ConditionFailed):
        await store.put("t/doc", b"four", Condition("if_match", second.etag))
    assert await head(store, "t/doc") is None


async def _race(place: Place, condition: Condition) -> tuple[list[bytes], int, bytes]:
    won: list[bytes] = []
    lost = 0

    async def write(store: RemoteStore, data: bytes) -> None:
        nonlocal lost
        try:
            await store.put("t/doc", data, condition)
        except ConditionFailed:
            lost += 1
        else:
            won.append(data)

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(place.open()) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for i in range(9):
                group.start_soon(write, stores[i % 3], b"writer %d" % i)
        left = await stores[0].get("t/doc", limit_bytes=100)
    return won, lost, left.data


async def test_of_many_who_create_a_document_one_wins(place: Place) -> None:
    won, lost, left = await _race(place, IF_ABSENT)
    assert (won, lost) == ([left], 8)


async def test_of_many_who_change_a_document_one_wins(place: Place) -> None:
    async with place.open() as store:
        first = await store.put("t/doc", b"first")
    won, lost, left = await _race(place, Condition("if_match", first.etag))
    assert (won, lost) == ([left], 8)


# Listing


async def test_a_listing_is_in_byte_order_below_its_prefix(store: RemoteStore) -> None:
    keys = ["s/x", "t/a!", "t/a.b/x", "t/a/y/z", "t/a/y0", "t/a0", "t/b/z", "t/b/\u00fc", "u/x"]
    await put_all(store, {key: key.encode() for key in reversed(keys)})
    infos = [info async for info in store.list("")]
    assert [info.key for info in infos] == keys
    assert [info.size_bytes for info in infos] == [len(key.encode()) for key in keys]
    assert await keys_of(store, "t/") == keys[1:-1]
    assert await keys_of(store, "t/a") == keys[1:6]
    assert await keys_of(store, "t/a/") == keys[3:5]
    assert await keys_of(store, "t/a/y") == keys[3:5]
    assert await keys_of(store, "t/a/y/z") == keys[3:4]
    assert await keys_of(store, "t/a/y/z/") == []
    assert await keys_of(store, "nothing/") == []


async def test_a_listing_of_many_pages(store: RemoteStore) -> None:
    keys = [f"many/{i % 7}/{i:05}" for i in range(2100)]
    await put_all(store, dict.fromkeys(keys, b"x"))
    assert await keys_of(store, "many/") == sorted(keys)


async def test_a_listing_can_be_left_early(store: RemoteStore) -> None:
    await put_all(store, {f"t/{i}": b"x" for i in range(5)})
    async with aclosing(store.list("t/")) as infos:
        assert (await anext(infos)).key == "t/0"


# Cancellation


async def test_a_call_that_begins_cancelled_touches_no_sink(store: RemoteStore) -> None:
    await put_all(store, {"t/a": bytes_of(1000)})
    sink = RecordingSink()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.get_batch([Get("t/a", sink)])
    assert scope.cancelled_caught
    assert sink.calls == []


async def test_a_read_that_is_cancelled_calls_no_sink_afterwards(store: RemoteStore) -> None:
    body = bytes_of(LARGE_BYTES)
    await store.put_large("t/large", parts_of(body, store.large_part_bytes), size_bytes=LARGE_BYTES)
    sinks: Sequence[RecordingSink] = [GatedSink(), *(RecordingSink() for _ in range(40))]
    gated = sinks[0]
    assert isinstance(gated, GatedSink)
    opener = threading.Timer(0.05, gated.gate.set)
    async with anyio.create_task_group() as group:
        group.start_soon(store.get_batch, [Get("t/large", sink) for sink in sinks])
        await anyio.to_thread.run_sync(gated.reached.wait)
        group.cancel_scope.cancel()
        opener.start()
        began = anyio.current_time()
    took_seconds = anyio.current_time() - began
    calls = [len(sink.calls) for sink in sinks]
    opener.join()
    await anyio.sleep(0.1)
    assert [len(sink.calls) for sink in sinks] == calls
    assert "finish" not in gated.calls
    assert took_seconds < 8
    assert digest_of(await read(store, "t/large")) == digest_of(body)


async def test_a_write_that_is_cancelled_calls_no_source_afterwards(store: RemoteStore) -> None:
    await put_all(store, {"t/before": bytes_of(1000)})
    reached, gate = threading.Event(), threading.Event()
    loaded: list[int] = []

    def put_number(i: int) -> Put:
        def load() -> bytes:
            loaded.append(i)
            reached.set()
            gate.wait(10)
            return bytes_of(1000, i)

        return Put(f"t/{i:03}", load, 1000)

    opener = threading.Timer(0.05, gate.set)
    async with anyio.create_task_group() as group:
        group.start_soon(store.put_batch, [put_number(i) for i in range(200)])
        await anyio.to_thread.run_sync(reached.wait)
        group.cancel_scope.cancel()
        opener.start()
    count = len(loaded)
    opener.join()
    await anyio.sleep(0.1)
    assert len(loaded) == count
    infos = [info async for info in store.list("t/")]
    assert len(infos) <= 200
    assert {info.size_bytes for info in infos} <= {1000}


# Names


async def test_a_store_says_what_it_is(store: RemoteStore) -> None:
    assert str(store.uri) in store.describe()
    assert store.large_part_bytes >= 5 * MIB
