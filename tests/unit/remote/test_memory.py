"""The store in memory fails as planned; what it does right is checked by the contract suite."""

from __future__ import annotations

import anyio
import pytest

from snapd.model.errors import AccessDenied, ConnectionLost, StoreMissing, Throttled
from snapd.model.uris import parse_store_uri
from snapd.remote.base import ByteRange, Get, Got, Put, Stored
from snapd.remote.memory import Fault, Faults, MemoryStore, MemoryStores, Stall
from tests.contract.sinks import RecordingSink, read


def store_with(*plan: Fault, **bodies: bytes) -> MemoryStore:
    store = MemoryStore(faults=Faults(list(plan)))
    store.objects.update(bodies)
    return store


async def test_every_request_is_counted_by_operation_and_key() -> None:
    store = store_with(a=b"x", b=b"y")
    await store.get_batch([Get("a", RecordingSink()), Get("a", RecordingSink(), ByteRange(0, 1))])
    await store.head_batch(["a", "b"])
    await store.get("b", limit_bytes=10)
    assert store.requests == {
        ("get", "a"): 2,
        ("head", "a"): 1,
        ("head", "b"): 1,
        ("get_document", "b"): 1,
    }
    assert store.faults.count("get") == 2
    assert store.faults.count("put") == 0


async def test_a_fault_strikes_the_planned_time_of_each_key() -> None:
    store = store_with(Fault("get", nth=(2,), error=Throttled("slow down")), a=b"x", b=b"y")
    for key in ("a", "b"):
        assert await read(store, key)
        with pytest.raises(Throttled):
            await read(store, key)
        assert await read(store, key)


async def test_a_fault_strikes_only_its_operation_and_keys() -> None:
    denied = AccessDenied("no")
    store = store_with(Fault("put", "secret/*", error=denied))
    outcomes = await store.put_batch(
        [Put("secret/a", lambda: b"", 0), Put("open/a", lambda: b"", 0)]
    )
    assert outcomes[0] is denied
    assert isinstance(outcomes[1], Stored)
    assert list(store.objects) == ["open/a"]


async def test_a_body_can_be_altered() -> None:
    store = store_with(Fault("get", nth=(1,), alter=lambda body: body[::-1]), a=b"abc")
    assert await read(store, "a") == b"cba"
    assert await read(store, "a") == b"abc"


async def test_a_body_can_be_cut() -> None:
    store = store_with(Fault("get", cut_bytes=2), a=b"abc")
    sink = RecordingSink()
    [outcome] = await store.get_batch([Get("a", sink)])
    assert isinstance(outcome, ConnectionLost)
    assert "2 of 3 bytes" in outcome.message
    assert (sink.body, sink.calls) == (b"ab", ["start", "write"])


async def test_a_request_can_hang_in_its_body_until_released() -> None:
    stall = Stall(after_bytes=1)
    store = store_with(Fault("get", "a", stall=stall), a=b"abc", b=b"x")
    hanging = RecordingSink()
    async with anyio.create_task_group() as group:
        group.start_soon(store.get_batch, [Get("a", hanging)])
        await stall.reached.wait()
        assert hanging.body == b"a"
        assert await read(store, "b") == b"x"
        stall.release()
    assert hanging.body == b"abc"
    assert hanging.finished


async def test_a_request_that_hangs_can_be_cancelled() -> None:
    stall = Stall()
    store = store_with(Fault("put_document", stall=stall))
    async with anyio.create_task_group() as group:
        group.start_soon(store.put, "a", b"x")
        await stall.reached.wait()
        group.cancel_scope.cancel()
    assert store.objects == {}


async def test_a_request_can_be_late() -> None:
    store = store_with(Fault("get", delay_seconds=0.05), a=b"x")
    began = anyio.current_time()
    assert await store.get_batch([Get("a", RecordingSink())]) == [Got(1)]
    assert anyio.current_time() - began >= 0.05


async def test_a_store_that_does_not_exist_takes_no_writes() -> None:
    store = MemoryStore(exists=False)
    [outcome] = await store.put_batch([Put("a", lambda: b"", 0)])
    assert isinstance(outcome, StoreMissing)
    with pytest.raises(StoreMissing):
        await store.put("a", b"")


def test_a_holder_gives_the_same_store_for_the_same_uri() -> None:
    stores, others = MemoryStores(), MemoryStores()
    uri = parse_store_uri("memory://name")
    assert stores.store(uri) is stores.store(parse_store_uri("memory://name"))
    assert stores.store(uri) is not stores.store(parse_store_uri("memory://other"))
    assert stores.store(uri) is not others.store(uri)
