"""What the observer is told of each request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio
import pytest

from snapd.model.errors import KeyMissing, Throttled
from snapd.remote.base import Get, Put
from snapd.remote.memory import Fault, Faults, MemoryStore, Stall
from snapd.remote.metered import Metered
from snapd.runtime.observer import Observer
from tests.contract.sinks import RecordingSink

Request = tuple[str, str, int, float, int]


class Notes(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.retries: list[tuple[str, str]] = []

    def on_requests(
        self, operation: str, outcome: str, count: int, seconds: float, size_bytes: int
    ) -> None:
        self.requests.append((operation, outcome, count, seconds, size_bytes))

    def on_retry(self, operation: str, reason: str) -> None:
        self.retries.append((operation, reason))


class Clock:
    """Goes on by one second whenever somebody looks at it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1.0
        return self.seconds


def metered(*plan: Fault, **bodies: bytes) -> tuple[Metered, Notes]:
    notes = Notes()
    store = MemoryStore(faults=Faults(list(plan)))
    store.objects.update(bodies)
    return Metered(store, notes, now=Clock()), notes


async def parts_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_the_items_of_a_batch_are_requests_with_their_share_of_the_time() -> None:
    store, notes = metered(Fault("get", "c", error=Throttled("slow")), a=b"123", c=b"x")
    await store.get_batch([Get(key, RecordingSink()) for key in ("a", "b", "c", "a")])
    assert notes.requests == [
        ("get", "ok", 2, 0.25, 6),
        ("get", "no_such_key", 1, 0.25, 0),
        ("get", "throttled", 1, 0.25, 0),
    ]


async def test_looking_at_an_absent_key_is_a_success() -> None:
    store, notes = metered()
    await store.head_batch(["a"])
    assert notes.requests == [("head", "ok", 1, 1.0, 0)]


async def test_only_bytes_that_were_sent_count() -> None:
    store, notes = metered(a=b"old")
    await store.put_batch([Put("a", lambda: b"new", 3), Put("b", lambda: b"new!", 4)])
    await store.put_large("c", parts_of(b"12345", b"6"), size_bytes=6)
    await store.put_large("c", parts_of(b"12345", b"6"), size_bytes=6)
    await store.put("d", b"12")
    assert [(request[0], request[4]) for request in notes.requests] == [
        ("put", 4),
        ("put_large", 6),
        ("put_large", 0),
        ("put_document", 2),
    ]


async def test_single_requests_report_their_outcome() -> None:
    store, notes = metered(a=b"123")
    await store.get("a", limit_bytes=10)
    with pytest.raises(KeyMissing):
        await store.get("b", limit_bytes=10)
    await store.delete("a")
    assert notes.requests == [
        ("get_document", "ok", 1, 1.0, 3),
        ("get_document", "no_such_key", 1, 1.0, 0),
        ("delete", "ok", 1, 1.0, 0),
    ]


async def test_cancelled_requests_are_reported_as_such() -> None:
    stall = Stall()
    store, notes = metered(Fault("get", stall=stall), Fault("get_document", stall=stall), a=b"x")
    async with anyio.create_task_group() as group:
        group.start_soon(store.get_batch, [Get("a", RecordingSink()), Get("a", RecordingSink())])
        await stall.reached.wait()
        group.cancel_scope.cancel()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.get("a", limit_bytes=1)
    assert [request[:3] for request in notes.requests] == [
        ("get", "cancelled", 2),
        ("get_document", "cancelled", 1),
    ]


async def test_a_walk_is_one_request_also_when_left_early() -> None:
    store, notes = metered(Fault("list", "bad", error=Throttled("slow")), a=b"", b=b"")
    assert [info.key async for info in store.list("")] == ["a", "b"]
    async with aclosing(store.list("")) as infos:
        await anext(infos)
    with pytest.raises(Throttled):
        await anext(store.list("bad"))
    assert [request[:2] for request in notes.requests] == [
        ("list", "ok"),
        ("list", "ok"),
        ("list", "throttled"),
    ]


def test_it_names_the_chain() -> None:
    assert metered()[0].describe() == "metered(memory://store)"
