from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace

import anyio
import pytest

from snapd.actions.watch import Watch, keys_behind
from snapd.model.errors import ConnectionLost, SnapsyncError, VersionNotFound
from snapd.model.ids import SnapshotId
from snapd.model.references import Reference, parse_reference
from snapd.model.registry import Author
from snapd.model.releases import Sighting
from snapd.model.versions import Version, parse_version
from snapd.registry.names import Registry, dataset_key, model_key
from snapd.remote.base import Document, HeadOutcome, ObjectInfo
from snapd.remote.memory import Fault, MemoryStore, Stall
from snapd.remote.stores import open_stores

STORE = "memory://store"
ONE, TWO = parse_version("v1.0.0"), parse_version("v2.0.0")


@dataclass
class Ear:
    """Hears what a watch tells."""

    reference: Reference
    poll_seconds: float = 0.01
    heard: list[tuple[Sighting | SnapsyncError, bool]] = field(default_factory=list)
    more: anyio.Event = field(default_factory=anyio.Event)

    def told(self, outcome: Sighting | SnapsyncError, *, polled: bool) -> None:
        self.heard.append((outcome, polled))
        self.more.set()

    async def next(self) -> tuple[Sighting | SnapsyncError, bool]:
        self.more = anyio.Event()
        with anyio.fail_after(10):
            await self.more.wait()
        return self.heard[-1]


@asynccontextmanager
async def watching(memory: MemoryStore, reference: str) -> AsyncIterator[tuple[Watch, Ear]]:
    ear = Ear(parse_reference(reference))
    async with (
        open_stores(lambda _: nullcontext(memory), (STORE,)) as stores,
        anyio.create_task_group() as tasks,
    ):
        watch = Watch(STORE, keys_behind(ear.reference), stores, random=lambda: 0.5)
        watch.join(ear)
        tasks.start_soon(watch.run)
        yield watch, ear
        tasks.cancel_scope.cancel()


async def publish(memory: MemoryStore, version: Version, number: int) -> None:
    who = Author("ann", 1_700_000_000.0 + number, f"token{number}", "labels")
    snapshot_id = SnapshotId(f"{number:064x}")
    await Registry(memory).add_to_dataset("imagenet", version, snapshot_id, who)


@pytest.mark.parametrize(
    ("reference", "keys"),
    [
        ("iris@production", (model_key("iris"),)),
        ("model:iris@v1.0.0", (model_key("iris"),)),
        ("dataset:iris@v1.0.0", (dataset_key("iris"),)),
        ("iris@v1.0.0", (model_key("iris"), dataset_key("iris"))),
    ],
)
def test_only_the_documents_that_decide_are_looked_at(
    reference: str, keys: tuple[str, ...]
) -> None:
    assert keys_behind(parse_reference(reference)) == keys


async def test_a_dataset_s_version_is_followed_once_it_is_there() -> None:
    memory = MemoryStore(STORE)
    async with watching(memory, "imagenet@v2.0.0") as (_, ear):
        outcome, polled = await ear.next()
        assert isinstance(outcome, SnapsyncError)
        assert (outcome.code, polled) == ("no_such_name", True)
        await publish(memory, ONE, 1)
        while not isinstance(outcome, VersionNotFound):
            outcome, polled = await ear.next()
        await publish(memory, TWO, 2)
        while not isinstance(outcome, Sighting):
            outcome, polled = await ear.next()
        assert outcome.resolved.version == "v2.0.0"
        assert (outcome.change.by, outcome.change.note) == ("ann", "labels")


async def test_what_did_not_change_is_not_read_again() -> None:
    memory = MemoryStore(STORE)
    await publish(memory, ONE, 1)
    async with watching(memory, "dataset:imagenet@v1.0.0") as (watch, ear):
        await ear.next()
        read = memory.faults.count("get_document")
        for _ in range(4):
            await ear.next()
        assert memory.faults.count("get_document") == read
        other = Ear(parse_reference("dataset:imagenet@v9.0.0"))
        watch.join(other)
        outcome, _ = await other.next()
        assert isinstance(outcome, VersionNotFound)
        assert memory.faults.count("get_document") == read + 1, "only for who is new"


async def test_a_store_that_fails_or_hangs_is_told_and_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snapd.actions.watch.POLL_MAX_SECONDS", 0.05)
    memory = MemoryStore(STORE)
    await publish(memory, ONE, 1)
    stall = Stall()
    memory.faults.add(Fault("head", nth={1}, error=ConnectionLost("gone")))
    memory.faults.add(Fault("head", nth={2}, stall=stall))
    async with watching(memory, "dataset:imagenet@v1.0.0") as (_, ear):
        while len(ear.heard) < 3:
            await ear.next()
    codes = [getattr(outcome, "code", "") for outcome, _ in ear.heard[:3]]
    assert codes == ["connection_lost", "timed_out", ""]
    assert [polled for _, polled in ear.heard[:3]] == [False, False, True]


async def test_a_defect_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore(STORE)
    await publish(memory, ONE, 1)
    failing = [True]
    real = Registry.look_up

    async def look_up(self: Registry, reference: Reference) -> object:
        if failing:
            failing.clear()
            raise ZeroDivisionError
        return await real(self, reference)

    monkeypatch.setattr(Registry, "look_up", look_up)
    async with watching(memory, "dataset:imagenet@v1.0.0") as (_, ear):
        outcome, polled = await ear.next()
        assert getattr(outcome, "code", "") == "internal_error"
        assert not polled
        outcome, polled = await ear.next()
        assert isinstance(outcome, Sighting)


class Untagged(MemoryStore):
    """What a proxy leaves of a store: no ETag."""

    async def head_batch(self, keys: Sequence[str]) -> list[HeadOutcome]:
        found = await super().head_batch(keys)
        return [replace(x, etag="") if isinstance(x, ObjectInfo) else x for x in found]

    async def get(self, key: str, *, limit_bytes: int) -> Document:
        return replace(await super().get(key, limit_bytes=limit_bytes), etag="")


async def test_a_store_without_tags_is_read_each_time() -> None:
    tagged, memory = MemoryStore(STORE), Untagged(STORE)
    memory.objects = tagged.objects
    await publish(tagged, ONE, 1)
    async with watching(memory, "dataset:imagenet@v2.0.0") as (_, ear):
        outcome, _ = await ear.next()
        assert isinstance(outcome, VersionNotFound)
        await publish(tagged, TWO, 2)
        while not isinstance(outcome, Sighting):
            outcome, _ = await ear.next()
