"""A run is recorded with what its references led to, and with snapshots that are whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from snapd.actions.publish import Certifier
from snapd.actions.record import look_up, record_run
from snapd.model.errors import (
    NameNotFound,
    ObjectMissing,
    RegistryRefused,
    RunExists,
    SnapshotNotFound,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.references import Resolved
from snapd.model.registry import Author
from snapd.model.run_parts import Use
from snapd.model.runs import Run
from snapd.model.settings import TransferSettings
from snapd.model.versions import parse_version
from snapd.model.written_runs import Named, WrittenRun, read_named, run_as_written
from snapd.registry.names import Registry
from snapd.registry.runs import Runs
from snapd.remote.memory import MemoryStore
from tests.samples import sample
from tests.unit.model.registering import author, snapshot

pytestmark = pytest.mark.usefixtures("event_loop_never_blocks")

OTHER = "file:///other"


def stored(store: MemoryStore, text: str, *, whole: bool = True) -> SnapshotId:
    """Put a snapshot of one file into a store, or its manifest alone."""
    made = sample({"a": text.encode()})
    store.objects.update(made.keys())
    if not whole:
        del store.objects[object_key(digest_of(text.encode()))]
    return made.id


class Stores:
    """A store of records, and another one that is opened by its address."""

    def __init__(self) -> None:
        self.home = MemoryStore("memory://home")
        self.other = MemoryStore("memory://other")
        self.registry = Registry(self.home)
        self.opened: list[str] = []
        self.said: list[str] = []

    @asynccontextmanager
    async def open(self, uri: str) -> AsyncGenerator[MemoryStore]:
        self.opened.append(uri)
        yield self.other

    async def record(self, written: WrittenRun, run_id: str = "r1") -> Run:
        return await record_run(
            self.registry,
            written,
            run_id,
            author(),
            Certifier(TransferSettings(), lambda _: None),
            open_other=self.open,
            on_resolved=self._say,
        )

    async def name(self, store: MemoryStore, text: str, snapshot_id: SnapshotId) -> None:
        name, _, version = text.partition("@")
        who: Author = author()
        await Registry(store).add_to_dataset(name, parse_version(version), snapshot_id, who)

    def _say(self, resolved: Resolved) -> None:
        self.said.append(resolved.line())


@pytest.fixture
def stores() -> Stores:
    return Stores()


async def test_references_are_looked_up_once_and_kept_with_the_id(stores: Stores) -> None:
    one = stored(stores.home, "one")
    await stores.name(stores.home, "iris@v1.0.0", one)
    written = run_as_written({"data": ["iris@1.0.0", "iris@v1.0.0"], "outputs": {"model": one}})
    run = await stores.record(written)
    assert run.data == (Use(one, "iris@v1.0.0"),) * 2
    assert run.outputs == (Use(one, path="model"),)
    assert stores.said == [f"iris@v1.0.0 is {one}"]
    assert [each async for each in Runs(stores.registry).using(one)] == ["r1"]
    assert stores.opened == []


async def test_a_reference_beside_an_id_must_not_lead_elsewhere(stores: Stores) -> None:
    one, two = stored(stores.home, "one"), stored(stores.home, "two")
    await stores.name(stores.home, "iris@v1.0.0", one)
    with pytest.raises(RegistryRefused, match=f"iris@v1.0.0 is {one}"):
        await stores.record(run_as_written({"data": {"iris@v1.0.0": two}}))
    # Where a stage led then, and what another store calls it, can't be told here.
    for beside in ("iris@production", "rose@v1.0.0", "iris@v9.0.0", "iris@v1.0.0"):
        run = await stores.record(run_as_written({"data": {beside: one}}), beside.replace("@", "-"))
        assert run.data == (Use(one, beside),)
    assert stores.said == []


@pytest.mark.parametrize("field", ["data", "outputs"])
async def test_only_what_is_whole_is_recorded(stores: Stores, field: str) -> None:
    absent, partial = snapshot("absent"), stored(stores.home, "partial", whole=False)
    with pytest.raises(SnapshotNotFound, match="x") as unfound:
        await stores.record(run_as_written({field: {"x": absent}}))
    assert "--data-store" in unfound.value.hint
    with pytest.raises(ObjectMissing):
        await stores.record(run_as_written({field: partial}))
    with pytest.raises(NameNotFound):
        await stores.record(run_as_written({field: "iris@v1.0.0"}))
    assert await Runs(stores.registry).find("r1") is None
    assert not any("links" in key for key in stores.home.objects)


async def test_what_this_node_proved_needs_no_look(stores: Stores) -> None:
    absent = snapshot("absent")
    named = replace(read_named(f"x={absent}", "--data"), store=OTHER, is_proven=True)
    run = await stores.record(WrittenRun(data=(named,)))
    assert run.data == (Use(absent, path="x", store=OTHER),)
    assert stores.opened == []


async def test_data_of_another_store_is_looked_for_there(stores: Stores) -> None:
    there = stored(stores.other, "there")
    await stores.name(stores.other, "iris@v1.0.0", there)
    run = await stores.record(run_as_written({"data": {"reference": "iris@v1.0.0", "uri": OTHER}}))
    assert run.data == (Use(there, "iris@v1.0.0", store=OTHER),)
    assert set(stores.opened) == {OTHER}
    with pytest.raises(SnapshotNotFound):
        await stores.record(run_as_written({"data": there}), "r2")


async def test_the_same_run_again_is_not_looked_at_again(stores: Stores) -> None:
    one = stored(stores.home, "one")
    first = await stores.record(run_as_written({"data": one}))
    stores.home.objects.pop(manifest_key(one))
    assert await stores.record(run_as_written({"data": one})) == first
    with pytest.raises(RunExists, match="other data"):
        await stores.record(run_as_written({"data": snapshot("two")}))


async def test_references_are_looked_up_before_a_run_and_not_again(stores: Stores) -> None:
    one = stored(stores.home, "one")
    await stores.name(stores.home, "iris@v1.0.0", one)
    [led] = await look_up(
        stores.registry,
        (Named(read_named("iris@v1.0.0", "--data").named, "train"),),
        open_other=stores.open,
        on_resolved=stores._say,
    )
    assert led.use() == Use(one, "iris@v1.0.0", "train")
    assert len(stores.said) == 1
    assert (await stores.record(WrittenRun(data=(led,)))).data == (led.use(),)
    assert len(stores.said) == 1
