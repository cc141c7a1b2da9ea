"""Lineage out of a registry on every kind of store: memory, a directory, a real S3 server."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from snapd.model.ids import SnapshotId, digest_of
from snapd.model.lineage import Graph, Way, impact, snapshot_node
from snapd.model.registry import Author
from snapd.model.run_parts import Use
from snapd.model.runs import Run
from snapd.model.stages import NewVersion, add, move, new_model
from snapd.model.versions import parse_version
from snapd.registry.documents import Documents
from snapd.registry.lineage import Lineage, read_names
from snapd.registry.names import Registry, dataset_key, model_key
from snapd.registry.pushes import Pushes
from snapd.registry.runs import Runs, link_key, run_key
from snapd.remote.base import ALWAYS, ObjectInfo
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
_tokens = (f"change{number}" for number in itertools.count())
BOTH: tuple[Way, ...] = ("up", "down")


@pytest.fixture(params=sorted(PLACES_HERE))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES_HERE[request.param](request)


@pytest.fixture
async def registry(place: Place) -> AsyncIterator[Registry]:
    async with place.open() as store:
        yield Registry(store)


def me() -> Author:
    return Author("ann@host", 1_800_000_000.0, next(_tokens), "")


def snapshot(text: str) -> SnapshotId:
    return SnapshotId(digest_of(text.encode()))


async def record(registry: Registry, run_id: str, data: Sequence[str], made: Sequence[str]) -> None:
    uses = tuple(Use(snapshot(each)) for each in data)
    outputs = tuple(Use(snapshot(each)) for each in made)
    run = Run(run_id, AT, "ann@host", next(_tokens), data=uses, outputs=outputs)
    await Runs(registry).record(run)


async def name_dataset(registry: Registry, name: str, text: str) -> None:
    await registry.add_to_dataset(name, parse_version("v1.0.0"), snapshot(text), me())


async def name_model(registry: Registry, name: str, text: str, run: str, stage: str) -> None:
    version, author, again = parse_version("v1.0.0"), me(), me()
    new = NewVersion(snapshot(text), run=run)
    await registry.change_model(
        name, lambda model: add(model, version, new, author), author, new=new_model
    )
    await registry.change_model(name, lambda model: move(model, version, stage, again), again)


async def trace(
    registry: Registry,
    root: str,
    ways: tuple[Way, ...] = BOTH,
    *,
    depth: int = 10,
    revisions: bool = True,
    nodes_max: int = 1000,
) -> Graph:
    lineage = Lineage(registry, await read_names(registry))
    roots = [snapshot_node(snapshot(root))]
    return await lineage.trace(roots, ways, depth=depth, revisions=revisions, nodes_max=nodes_max)


def titles(graph: Graph, *texts: str) -> set[str]:
    """Name the nodes, snapshots by the text that they were made of."""
    known = {snapshot(text): text for text in texts}
    return {known.get(SnapshotId(node.title), node.title) for node in graph.nodes.values()}


async def test_what_went_in_and_what_came_of_it(registry: Registry) -> None:
    await record(registry, "clean", ["raw"], ["data"])
    await record(registry, "train", ["data", "pretrained"], ["model"])
    await record(registry, "other", ["else"], ["unrelated"])
    await name_dataset(registry, "imagenet", "data")
    await name_model(registry, "iris", "model", "train", "production")
    texts = ("raw", "data", "pretrained", "model")
    graph = await trace(registry, "data")
    assert titles(graph, *texts) == {
        *("raw", "clean", "data", "train", "model"),
        *("imagenet@v1.0.0", "iris@v1.0.0"),
    }
    graph = await trace(registry, "model", ("up",))
    assert titles(graph, *texts) >= {"model", "train", "data", "pretrained", "clean", "raw"}
    assert {(edge.kind) for edge in graph.edges} == {"used", "made", "names"}
    [found] = impact(await trace(registry, "raw", ("down",)), await read_names(registry))
    assert [node.title for node in found.steps if node.kind == "run"] == ["clean", "train"]


async def test_a_model_that_only_names_its_run_is_connected(registry: Registry) -> None:
    await record(registry, "train", ["data"], [])
    await name_model(registry, "iris", "model", "train", "dev")
    await name_model(registry, "rose", "rose", "never-recorded", "dev")
    assert "model" in titles(await trace(registry, "data"), "data", "model")
    graph = await trace(registry, "rose")
    assert titles(graph, "rose") == {"rose", "never-recorded", "rose@v1.0.0"}
    assert graph.nodes["run:never-recorded"].details == {"recorded": False}


async def test_revisions_lead_to_revisions_only(registry: Registry) -> None:
    pushes = Pushes(registry.documents)
    for number, text in enumerate(("first", "second", "third")):
        parent = snapshot(("", "first", "second")[number]) if number else None
        await pushes.add(
            "s3://b", snapshot(text), now_ms=1000 + number, by="ann", mark="m", parent_id=parent
        )
    await record(registry, "train", ["third"], ["model"])
    texts = ("first", "second", "third", "model")
    down = await trace(registry, "first", ("down",))
    assert titles(down, *texts) == {"first", "second", "third"}, "the model is not made of it"
    up = await trace(registry, "model", ("up",))
    assert titles(up, *texts) == {"model", "train", "third", "second", "first"}
    without = await trace(registry, "model", ("up",), revisions=False)
    assert titles(without, *texts) == {"model", "train", "third"}


async def test_a_cycle_ends_and_a_diamond_comes_once(registry: Registry) -> None:
    await record(registry, "there", ["a"], ["b", "c"])
    await record(registry, "join", ["b", "c"], ["d"])
    await record(registry, "back", ["d"], ["a"])
    graph = await trace(registry, "a")
    assert titles(graph, *"abcd") == {*"abcd", "there", "join", "back"}
    assert len(graph.edges) == 8
    assert not graph.unexplored


async def test_bounds_are_told(registry: Registry) -> None:
    await record(registry, "r1", ["s0"], ["s1"])
    await record(registry, "r2", ["s1"], ["s2"])
    texts = ("s0", "s1", "s2")
    short = await trace(registry, "s0", ("down",), depth=2)
    assert titles(short, *texts) == {"s0", "r1", "s1"}
    assert short.unexplored == {snapshot_node(snapshot("s1")).key}
    narrow = await trace(registry, "s0", ("down",), nodes_max=3)
    assert narrow.is_full
    assert len(narrow.nodes) == 3


async def test_what_cannot_be_read_hides_nothing_else(registry: Registry) -> None:
    await record(registry, "train", ["data"], ["model"])
    await name_dataset(registry, "imagenet", "data")
    await name_dataset(registry, "broken", "data")
    await name_model(registry, "iris", "model", "train", "production")
    await registry.store.put(dataset_key("broken"), b"{", ALWAYS)
    await registry.store.put(run_key("train"), b"{", ALWAYS)
    names = await read_names(registry)
    assert list(names.unreadable) == ["dataset broken"]
    assert not names.more
    graph = await trace(registry, "data")
    assert "error" in graph.nodes["run:train"].details
    assert titles(graph, "data", "model") == {
        *("data", "train", "model", "imagenet@v1.0.0", "iris@v1.0.0")
    }, "the model itself names the run"


async def test_a_link_without_a_record_means_nothing(registry: Registry) -> None:
    await registry.store.put(link_key("used-by", snapshot("data"), "gone"), b"{}", ALWAYS)
    assert titles(await trace(registry, "data"), "data") == {"data"}


async def test_more_names_than_are_looked_through(registry: Registry) -> None:
    for number in range(3):
        await name_dataset(registry, f"d{number}", "data")
    names = await read_names(registry, limit=2)
    assert names.more
    assert [version.name for version in names.of(snapshot("data"))] == ["d0", "d1"]


class _Counting(MemoryStore):
    """Remembers which prefixes were listed."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.listed: list[str] = []

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        self.listed.append(prefix)
        async for info in super().list(prefix):
            yield info


async def test_runs_are_found_by_their_links_and_never_listed() -> None:
    store = _Counting("memory://counting")
    registry = Registry(store, Documents(store))
    await name_model(registry, "iris", "model", "train", "production")
    await record(registry, "train", ["data"], ["model"])
    await trace(registry, "data")
    assert store.listed
    assert not [prefix for prefix in store.listed if prefix.startswith("registry/runs")]
    assert model_key("iris") in store.objects
