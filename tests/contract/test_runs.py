"""What is promised of runs, checked on every kind of store: memory, a directory, real S3."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import anyio
import pytest

from snapd.model.errors import (
    AccessDenied,
    ClockBehind,
    InvalidName,
    RegistryDamaged,
    RegistryFull,
    RegistryTooNew,
    RunExists,
    RunNotFound,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.run_parts import Use
from snapd.model.runs import Run, render_link
from snapd.registry.documents import Documents
from snapd.registry.names import Registry
from snapd.registry.runs import Runs, link_key, run_key
from snapd.remote.base import ALWAYS, Condition, Stored
from snapd.remote.memory import MemoryStore
from tests.contract.places import PLACES, Place
from tests.contract.s3_places import S3_PLACES

pytestmark = pytest.mark.usefixtures("event_loop_never_blocks")

PLACES_HERE = {
    "memory": PLACES["memory"],
    "directory": PLACES["directory"],
    "s3": S3_PLACES["s3-wrapped"],
}
AT = "2026-03-01T09:00:00.000Z"
_changes = (f"change{number}" for number in itertools.count())


@pytest.fixture(params=sorted(PLACES_HERE))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES_HERE[request.param](request)


@pytest.fixture
async def runs(place: Place) -> AsyncIterator[Runs]:
    async with place.open() as store:
        yield Runs(Registry(store))


def snapshot(text: str) -> SnapshotId:
    return SnapshotId(digest_of(text.encode()))


def run(run_id: str, *, data: str = "", outputs: str = "", at: str = AT) -> Run:
    return Run(
        run_id,
        at,
        "ann@host",
        next(_changes),
        data=tuple(Use(snapshot(each)) for each in data),
        outputs=tuple(Use(snapshot(each)) for each in outputs),
        started_at=AT,
    )


async def listed(found: AsyncGenerator[str, None]) -> list[str]:
    return [each async for each in found]


async def test_a_run_is_found_by_its_id_and_by_its_snapshots(runs: Runs) -> None:
    first = await runs.record(run("r1", data="ab", outputs="c"))
    await runs.record(run("r2", data="bc", outputs="d"))
    assert await runs.run("r1") == first
    assert await listed(runs.ids()) == ["r1", "r2"]
    assert await listed(runs.ids("r2")) == ["r2"]
    assert await listed(runs.using(snapshot("b"))) == ["r1", "r2"]
    assert await listed(runs.making(snapshot("c"))) == ["r1"]
    assert await listed(runs.using(snapshot("c"))) == ["r2"]
    assert await listed(runs.making(snapshot("a"))) == []


async def test_the_same_record_again_is_fine_and_another_is_refused(runs: Runs) -> None:
    first = await runs.record(run("r1", data="a"))
    again = replace(run("r1", data="a", at="2026-03-02T09:00:00.000Z"), by="bob@host")
    assert await runs.record(again) == first
    with pytest.raises(RunExists, match="by ann@host, with other data, outputs") as other:
        await runs.record(run("r1", data="b", outputs="c"))
    assert other.value.details["differs"] == ["data", "outputs"]
    assert await runs.run("r1") == first
    assert await listed(runs.using(snapshot("b"))) == []


async def test_of_many_who_record_one_run_one_does(place: Place) -> None:
    outcomes: list[str] = []

    async def record(number: int) -> None:
        async with place.open() as store:
            try:
                recorded = await Runs(Registry(store)).record(run("r1", data=f"x{number}"[1:]))
            except RunExists:
                outcomes.append("exists")
            else:
                outcomes.append(recorded.data[0].snapshot_id)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(record, number)
    [winner] = [each for each in outcomes if each != "exists"]
    async with place.open() as store:
        runs = Runs(Registry(store))
        assert (await runs.run("r1")).data[0].snapshot_id == winner
        # The others' links are there, and lead to nothing.
        for number in range(8):
            named = snapshot(f"{number}")
            assert await listed(runs.using(named)) == (["r1"] if named == winner else [])


async def test_a_run_that_is_not_there_is_told_with_the_nearest(runs: Runs) -> None:
    with pytest.raises(RunNotFound) as empty:
        await runs.run("20260301T090000Z-3f2a91c0")
    assert empty.value.details["nearest"] == []
    for run_id in ("20260301T090000Z-3f2a91c0", "20260302T090000Z-aaaaaaaa", "iris-7"):
        await runs.record(run(run_id))
    with pytest.raises(RunNotFound, match="did you mean 20260301T090000Z-3f2a91c0"):
        await runs.run("20260301T090000Z-3f2a")
    with pytest.raises(RunNotFound, match="did you mean iris-7"):
        await runs.run("iris7")


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", "a\nb", ".hidden", "x" * 129, "a" * 64])
async def test_a_hostile_id_reaches_no_key(runs: Runs, run_id: str) -> None:
    with pytest.raises(InvalidName):
        await runs.run(run_id)
    with pytest.raises(InvalidName):
        await runs.record(run(run_id))
    assert await listed(runs.ids()) == []


@pytest.mark.parametrize("damage", ["later", "garbage", "other", "moved"])
async def test_what_is_not_understood_is_refused_and_never_overwritten(
    runs: Runs, damage: str
) -> None:
    await runs.record(run("r1", data="a"))
    good = (await runs.store.get(run_key("r1"), limit_bytes=10**6)).data
    bad = {
        "later": good.replace(b"snapsync.run/1", b"snapsync.run/2"),
        "garbage": good[:-5],
        "other": good.replace(b'"by"', b'"who"', 1),
        "moved": good.replace(b'"r1"', b'"r2"', 1),
    }[damage]
    assert bad != good
    await runs.store.put(run_key("r1"), bad, ALWAYS)
    kind = RegistryTooNew if damage == "later" else RegistryDamaged
    with pytest.raises(kind, match=run_key("r1")):
        await runs.run("r1")
    with pytest.raises(kind):
        await runs.record(run("r1", data="a"))
    assert (await runs.store.get(run_key("r1"), limit_bytes=10**6)).data == bad
    # Its link still leads to it, so that nobody takes it for unused.
    assert await listed(runs.using(snapshot("a"))) == ["r1"]


async def test_a_link_whose_record_never_came_is_passed_over(runs: Runs) -> None:
    used = snapshot("a")
    for run_id in ("dead", "r1"):
        await runs.store.put(
            link_key("used-by", used, run_id), render_link("used-by", used, run_id)
        )
    await runs.store.put(link_key("used-by", used, "r1").replace("r1", ".x"), b"not ours")
    await runs.record(run("r1", data="a"))
    assert await listed(runs.using(used)) == ["r1"]


async def test_more_runs_of_a_snapshot_than_are_read_at_once(runs: Runs) -> None:
    ids = [f"r{number:02}" for number in range(35)]
    async with anyio.create_task_group() as group:
        for run_id in ids:
            group.start_soon(runs.record, run(run_id, data="a"))
    assert await listed(runs.using(snapshot("a"))) == ids


async def test_what_is_unfit_is_refused_before_anything_is_written(runs: Runs) -> None:
    good = run("r1", data="a")
    with pytest.raises(ClockBehind, match="later"):
        await runs.record(replace(good, ended_at="2026-03-01T10:00:00.000Z"))
    with pytest.raises(InvalidName, match="before its started_at"):
        await runs.record(replace(good, ended_at="2026-03-01T08:00:00.000Z"))
    with pytest.raises(InvalidName, match="parameters"):
        await runs.record(replace(good, parameters={"a": "\x1b[2J"}))
    with pytest.raises(RegistryFull):
        await runs.record(replace(good, parameters={f"{n}": "x" * 16_000 for n in range(70)}))
    assert await listed(Documents(runs.store).keys("")) == []


class Breaking(MemoryStore):
    """Refuses writes below one prefix."""

    def __init__(self, refused: str) -> None:
        super().__init__("memory://breaking")
        self._refused = refused

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        if key.startswith(self._refused):
            raise AccessDenied(f"may not write {key}")
        return await super().put(key, data, condition)


@pytest.mark.parametrize("refused", ["registry/links/", "registry/runs/"])
async def test_no_record_is_without_its_links(refused: str) -> None:
    store = Breaking(refused)
    runs = Runs(Registry(store))
    with pytest.raises(AccessDenied):
        await runs.record(run("r1", data="ab", outputs="c"))
    assert await runs.find("r1") is None
    assert await listed(runs.using(snapshot("a"))) == []
