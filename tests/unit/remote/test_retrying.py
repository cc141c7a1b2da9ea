"""What is repeated, when, how often, and what is said at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import pytest

from snapd.model.errors import (
    AccessDenied,
    ConditionFailed,
    ConnectionLost,
    DigestMismatch,
    KeyMissing,
    NoSpace,
    StoreFailing,
    Throttled,
)
from snapd.remote.base import IF_ABSENT, Condition, Get, Got, ObjectInfo, Put, Stored
from snapd.remote.memory import Fault, Faults, MemoryStore
from snapd.remote.retrying import Retrying, Timing, retry_call
from snapd.runtime.retry import Backoff
from tests.contract.sinks import RecordingSink, read
from tests.unit.remote.test_metered import Notes, parts_of

BACKOFF = Backoff(base_seconds=1.0, max_seconds=8.0, attempts_max=4, deadline_seconds=100.0)
LOST = ConnectionLost("the connection was reset")


class Bed:
    """A clock that only sleeping moves, and dice that always show a half."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()
        self.slept.append(seconds)
        self.seconds += seconds

    @property
    def timing(self) -> Timing:
        return Timing(lambda: self.seconds, lambda: 0.5, self.sleep)


class Rig:
    """A retrying store around one in memory, with everything that can be looked at."""

    def __init__(self, *plan: Fault, backoff: Backoff = BACKOFF, **bodies: bytes) -> None:
        self.memory = MemoryStore(faults=Faults(list(plan)))
        self.memory.objects.update(bodies)
        self.notes = Notes()
        self.bed = Bed()
        self.store = Retrying(self.memory, backoff, self.notes, timing=self.bed.timing)


async def test_only_the_failed_items_of_a_batch_are_asked_again() -> None:
    rig = Rig(Fault("get", "b", nth=(1, 2), error=LOST), a=b"1", b=b"22", c=b"333")
    sinks = {key: RecordingSink() for key in "abc"}
    outcomes = await rig.store.get_batch([Get(key, sink) for key, sink in sinks.items()])
    assert outcomes == [Got(1), Got(2), Got(3)]
    assert rig.memory.requests == {("get", "a"): 1, ("get", "b"): 3, ("get", "c"): 1}
    assert [sink.body for sink in sinks.values()] == [b"1", b"22", b"333"]
    assert rig.bed.slept == [0.5, 1.0]
    assert rig.notes.retries == [("get", "connection_lost")] * 2


async def test_a_body_that_broke_is_read_anew_from_its_start() -> None:
    rig = Rig(Fault("get", nth=(1,), cut_bytes=2), a=b"abc")
    sink = RecordingSink()
    assert await rig.store.get_batch([Get("a", sink)]) == [Got(3)]
    assert sink.calls == ["start", "write", "start", "write", "finish"]
    assert sink.body == b"abc"


@pytest.mark.parametrize("error", [AccessDenied("no"), NoSpace("full"), KeyMissing("absent")])
async def test_what_will_not_pass_is_asked_once(error: Exception) -> None:
    assert isinstance(error, AccessDenied | NoSpace | KeyMissing)
    rig = Rig(Fault("get", error=error), a=b"x")
    assert await rig.store.get_batch([Get("a", RecordingSink())]) == [error]
    assert rig.memory.requests["get", "a"] == 1
    assert rig.bed.slept == []


async def test_bytes_that_a_sink_refuses_are_not_asked_for_again() -> None:
    rig = Rig(a=b"x")
    error = DigestMismatch("wrong bytes")
    sink = RecordingSink(fails_in="finish", error=error)
    assert await rig.store.get_batch([Get("a", sink)]) == [error]
    assert rig.memory.requests["get", "a"] == 1


async def test_the_last_cause_says_how_often_and_how_long() -> None:
    plan = [
        Fault("get", nth=(1, 2, 3), error=LOST),
        Fault("get", error=Throttled("slow down", hint="later", host="h")),
    ]
    rig = Rig(*plan, a=b"x")
    [outcome] = await rig.store.get_batch([Get("a", RecordingSink())])
    assert isinstance(outcome, Throttled)
    assert outcome.message == "slow down (gave up after 4 attempts over 3.5s)"
    assert outcome.hint == "later"
    assert outcome.details == {"host": "h", "attempts": 4, "elapsed_seconds": 3.5}
    assert rig.memory.requests["get", "a"] == 4
    assert rig.notes.retries == [("get", "connection_lost")] * 3


async def test_a_cause_that_will_not_pass_ends_the_repetitions() -> None:
    denied = AccessDenied("no")
    rig = Rig(Fault("get", nth=(1,), error=LOST), Fault("get", error=denied), a=b"x")
    assert await rig.store.get_batch([Get("a", RecordingSink())]) == [denied]
    assert rig.memory.requests["get", "a"] == 2


async def test_retry_after_is_waited_for_the_longest_of_the_batch() -> None:
    rig = Rig(
        Fault("put", "a", nth=(1,), error=Throttled("slow", retry_after_seconds=3)),
        Fault("put", "b", nth=(1,), error=Throttled("slow", retry_after_seconds=7.5)),
    )
    await rig.store.put_batch([Put("a", lambda: b"", 0), Put("b", lambda: b"", 0)])
    assert rig.bed.slept == [8.0]
    assert set(rig.memory.objects) == {"a", "b"}


async def test_a_retry_after_behind_the_deadline_ends_at_once() -> None:
    rig = Rig(Fault("head", error=Throttled("slow", retry_after_seconds=3600)))
    [outcome] = await rig.store.head_batch(["a"])
    assert isinstance(outcome, Throttled)
    assert outcome.message == "slow"
    assert rig.bed.slept == []
    assert rig.memory.requests["head", "a"] == 1


async def test_repetitions_end_by_the_deadline() -> None:
    backoff = Backoff(base_seconds=4.0, max_seconds=4.0, attempts_max=99, deadline_seconds=7.0)
    rig = Rig(Fault("get_document", error=LOST), backoff=backoff)
    with pytest.raises(ConnectionLost, match=r"gave up after 4 attempts over 6.0s") as caught:
        await rig.store.get("a", limit_bytes=10)
    assert caught.value.__cause__ is LOST
    assert rig.bed.slept == [2.0, 2.0, 2.0]


async def test_the_time_of_the_first_try_counts() -> None:
    rig = Rig(backoff=Backoff(1.0, 1.0, 99, 10.0))

    async def slow_failure() -> None:
        rig.bed.seconds += 11.0
        raise LOST

    with pytest.raises(ConnectionLost):
        await retry_call(rig.store._backoff, "get", slow_failure, timing=rig.bed.timing)
    assert rig.bed.slept == []


async def test_single_calls_are_repeated() -> None:
    plan = [
        Fault("get_document", nth=(1,), error=LOST),
        Fault("put_document", nth=(1,), error=LOST),
        Fault("delete", nth=(1,), error=LOST),
    ]
    rig = Rig(*plan)
    await rig.store.put("a", b"x")
    assert (await rig.store.get("a", limit_bytes=10)).data == b"x"
    await rig.store.delete("a")
    assert rig.memory.objects == {}
    assert rig.notes.retries == [
        ("put_document", "connection_lost"),
        ("get_document", "connection_lost"),
        ("delete", "connection_lost"),
    ]


async def test_a_document_that_is_too_large_is_asked_for_once() -> None:
    rig = Rig(a=b"12345")
    with pytest.raises(StoreFailing, match="at most 4"):
        await rig.store.get("a", limit_bytes=4)
    assert rig.memory.requests["get_document", "a"] == 1


async def test_a_large_object_is_written_once_because_its_parts_are_gone() -> None:
    rig = Rig(Fault("put_large", error=LOST))
    with pytest.raises(ConnectionLost):
        await rig.store.put_large("a", parts_of(b"x"), size_bytes=1)
    assert rig.memory.requests["put_large", "a"] == 1


class LosingAnswers(MemoryStore):
    """Writes, but the answer to the first conditional write of a key never arrives."""

    async def put(self, key: str, data: bytes, condition: Condition = IF_ABSENT) -> Stored:
        stored = await super().put(key, data, condition)
        if self.requests["put_document", key] == 1:
            raise LOST
        return stored


async def test_a_conditional_write_whose_answer_was_lost_is_done() -> None:
    memory, bed = LosingAnswers(), Bed()
    store = Retrying(memory, BACKOFF, Notes(), timing=bed.timing)
    stored = await store.put("a", b"ours", IF_ABSENT)
    assert stored.etag == (await memory.get("a", limit_bytes=10)).etag


@pytest.mark.parametrize("theirs", [b"them", b"something much longer"])
async def test_a_conditional_write_that_somebody_else_won_is_lost(theirs: bytes) -> None:
    rig = Rig(Fault("put_document", nth=(1,), error=LOST), a=theirs)
    with pytest.raises(ConditionFailed):
        await rig.store.put("a", b"ours", IF_ABSENT)
    assert rig.memory.objects["a"] == theirs


async def test_a_condition_that_fails_at_the_first_try_is_not_looked_into() -> None:
    rig = Rig(a=b"same")
    with pytest.raises(ConditionFailed):
        await rig.store.put("a", b"same", IF_ABSENT)
    assert rig.memory.faults.count("get_document") == 0


class BreakingWalks(MemoryStore):
    """Breaks every walk after two keys that were not given before."""

    walks = 0

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        self.walks += 1
        given = 0
        async for info in super().list(prefix):
            if given == 2 * self.walks:
                raise LOST
            given += 1
            yield info


async def test_a_broken_walk_goes_on_behind_the_last_key_as_long_as_it_gains() -> None:
    memory, bed = BreakingWalks(), Bed()
    keys = [f"{i:02}" for i in range(15)]
    memory.objects.update(dict.fromkeys(keys, b""))
    store = Retrying(memory, BACKOFF, Notes(), timing=bed.timing)
    assert [info.key async for info in store.list("")] == keys
    assert len(bed.slept) == 7


async def test_a_walk_that_gains_nothing_ends() -> None:
    rig = Rig(Fault("list", error=LOST))
    infos: list[ObjectInfo] = []
    with pytest.raises(ConnectionLost, match="gave up after 4 attempts"):
        infos.extend([info async for info in rig.store.list("")])
    assert infos == []


async def test_cancelling_between_tries_ends_at_once() -> None:
    asleep = anyio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await anyio.sleep_forever()

    memory = MemoryStore(faults=Faults([Fault("get", error=LOST)]))
    memory.objects["a"] = b"x"
    timing = Timing(sleep=sleep)
    store = Retrying(memory, BACKOFF, Notes(), timing=timing)
    async with anyio.create_task_group() as group:
        group.start_soon(store.get_batch, [Get("a", RecordingSink())])
        await asleep.wait()
        group.cancel_scope.cancel()
    assert memory.requests["get", "a"] == 1


async def test_it_works_on_the_real_clock() -> None:
    memory = MemoryStore(faults=Faults([Fault("get", nth=(1, 2), error=LOST)]))
    memory.objects["a"] = b"x"
    store = Retrying(memory, Backoff(0.001, 0.001, 3, 10.0), Notes())
    assert await read(store, "a") == b"x"


def test_it_names_the_chain() -> None:
    assert Rig().store.describe() == "retrying(memory://store)"
