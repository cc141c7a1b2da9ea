"""The record of pushes on every kind of store: memory, a directory, a real S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from snapd.model.errors import AccessDenied
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.pushes import CLOCKS_APART_MAX_MS, LOCATIONS_PREFIX, Push, location_digest
from snapd.model.registry import REGISTRY_PREFIX
from snapd.registry.documents import Documents
from snapd.registry.pushes import Pushes
from snapd.remote.base import ALWAYS, Put, PutOutcome, RemoteStore
from snapd.remote.memory import MemoryStore
from tests.contract.places import PLACES, Place
from tests.contract.s3_places import S3_PLACES

pytestmark = pytest.mark.usefixtures("event_loop_never_blocks")

PLACES_HERE = {
    "memory": PLACES["memory"],
    "directory": PLACES["directory"],
    "s3": S3_PLACES["s3-wrapped"],
}
STORE, OTHER = "s3://ml/store", "s3://ml/stor\u00e9"
NOW_MS = 1_772_355_600_123
WRITERS = 16


@pytest.fixture(params=sorted(PLACES_HERE))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES_HERE[request.param](request)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[RemoteStore]:
    async with place.open() as opened:
        yield opened


def snapshot(text: str) -> SnapshotId:
    return SnapshotId(digest_of(text.encode()))


async def add(
    store: RemoteStore,
    text: str,
    location: str = STORE,
    *,
    now_ms: int = NOW_MS,
    parent: str | None = None,
    mark: str = "",
) -> Push | None:
    return await Pushes(Documents(store)).add(
        location,
        snapshot(text),
        now_ms=now_ms,
        by="ann@host",
        mark=mark or f"m{len(text)}",
        parent_id=snapshot(parent) if parent else None,
    )


async def to(
    store: RemoteStore, location: str = STORE
) -> list[tuple[SnapshotId, SnapshotId | None]]:
    found = [push async for push in Pushes(Documents(store)).to(location)]
    return [(push.snapshot_id, push.previous_id) for push in found]


async def test_an_empty_store_tells_nothing(store: RemoteStore, place: Place) -> None:
    assert await to(store) == []
    assert await Pushes(Documents(store)).heads() == ([], False)
    assert await Pushes(Documents(store)).told_of(snapshot("a"), 10) == ([], False)


async def test_pushes_are_told_newest_first(store: RemoteStore) -> None:
    assert await add(store, "a")
    assert await add(store, "a", now_ms=NOW_MS + 9) is None, "it is the newest already"
    # The clock stands still, or is a little behind.
    assert await add(store, "b", now_ms=NOW_MS - 5000, parent="a")
    assert await add(store, "a", now_ms=NOW_MS + 20 * 86_400_000, parent="b")
    assert await add(store, "c", OTHER)
    a, b, c = map(snapshot, "abc")
    assert await to(store) == [(a, b), (b, a), (a, None)]
    pushes = Pushes(Documents(store))
    found, more = await pushes.told_of(a, 10)
    assert [(push.previous_id, push.parent_id, push.by) for push in found] == [
        (b, b, "ann@host"),
        (None, None, "ann@host"),
    ]
    assert not more
    assert (await pushes.told_of(a, 1)) == (found[:1], True)
    assert [push.snapshot_id async for push in pushes.after(a)] == [b]
    assert [push.previous_id async for push in pushes.of(a)] == [b, None]
    heads, more = await pushes.heads()
    assert {(push.location, push.snapshot_id) for push in heads} == {(STORE, a), (OTHER, c)}
    assert not more


async def test_many_who_push_at_once_are_all_recorded(place: Place) -> None:
    async def push_some(number: int) -> None:
        async with place.open() as store:
            for step in range(3):
                text = f"{number}-{step}"
                assert await add(store, text, now_ms=NOW_MS + step, mark=f"w{number}s{step}")

    async with anyio.create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(push_some, number)
    made = {snapshot(f"{number}-{step}") for number in range(WRITERS) for step in range(3)}
    async with place.open() as store:
        found = [push async for push in Pushes(Documents(store)).to(STORE)]
        assert len(found) == len(made)
        assert {push.snapshot_id for push in found} == made
        moments = [push.at_ms for push in found]
        assert moments == sorted(moments, reverse=True)
        assert {push.previous_id for push in found} <= made | {None}


async def test_one_clock_that_is_years_ahead_is_nobodys_predecessor(store: RemoteStore) -> None:
    await add(store, "a")
    await add(store, "future", now_ms=NOW_MS + CLOCKS_APART_MAX_MS + 60_000)
    assert await add(store, "b", now_ms=NOW_MS + 10)
    a, b, future = snapshot("a"), snapshot("b"), snapshot("future")
    assert await to(store) == [(future, a), (b, a), (a, None)]


async def test_what_else_lies_there_is_passed_over(store: RemoteStore) -> None:
    await add(store, "a")
    digest = location_digest(STORE)
    for key in (f"in/{digest}/98204/notes", f"of/{snapshot('a')}/x", "locations/zzz", "junk"):
        await store.put(f"{REGISTRY_PREFIX}pushes/{key}", b"junk", ALWAYS)
    assert await to(store) == [(snapshot("a"), None)]
    await store.put(f"{REGISTRY_PREFIX}{LOCATIONS_PREFIX}{digest}", b"damaged", ALWAYS)
    pushes = Pushes(Documents(store))
    [head], _ = await pushes.heads()
    assert (head.location, head.snapshot_id) == (f"(unknown location {digest})", snapshot("a"))
    [told], _ = await pushes.told_of(snapshot("a"), 5)
    assert (told.location, told.by) == (STORE, "ann@host"), "the push itself is not damaged"


async def test_a_damaged_push_still_tells_what_its_key_tells(store: RemoteStore) -> None:
    await add(store, "a")
    keys = [info.key async for info in store.list(f"{REGISTRY_PREFIX}pushes/of/")]
    await store.put(keys[0], b"{", ALWAYS)
    [told], _ = await Pushes(Documents(store)).told_of(snapshot("a"), 5)
    assert (told.location, told.snapshot_id, told.by) == (STORE, snapshot("a"), "")


class _NoWrites(MemoryStore):
    async def put_batch(self, puts: Sequence[Put]) -> list[PutOutcome]:
        return [AccessDenied(f"may not write {put.key}") for put in puts]


async def test_a_writer_without_permission_is_told() -> None:
    with pytest.raises(AccessDenied):
        await add(_NoWrites("memory://denied"), "a")


async def test_a_store_that_ignores_conditions_is_good_enough(store: RemoteStore) -> None:
    """Nothing is ever written over, so no probe is made and no condition is needed."""
    await add(store, "a")
    keys = [info.key async for info in store.list(REGISTRY_PREFIX)]
    assert all(key.startswith(f"{REGISTRY_PREFIX}pushes/") for key in keys)
