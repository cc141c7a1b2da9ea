"""Reading the lineage of snapshots in a registry: names, links of runs, the record of pushes.

What leads on from a snapshot is found by listings of one prefix each, never by reading all runs.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TypeVar

from snapd.model.datasets import Dataset
from snapd.model.errors import RegistryUnreadable
from snapd.model.ids import SnapshotId
from snapd.model.lineage import (
    NODES_MAX,
    Edge,
    Graph,
    NamedVersion,
    Names,
    Node,
    Way,
    run_node,
    snapshot_node,
    versions_of,
)
from snapd.model.models import Model
from snapd.model.references import KINDS, NameKind
from snapd.model.runs import LinkKind, Run
from snapd.registry.beginning import beginning
from snapd.registry.names import LISTED_MAX, Registry
from snapd.registry.pushes import Pushes
from snapd.registry.runs import Runs
from snapd.registry.side_by_side import side_by_side

T = TypeVar("T")

_RUNS_AT_ONCE = 4
"""Of one snapshot, beside those of others."""


async def read_names(registry: Registry, *, limit: int = LISTED_MAX) -> Names:
    """Read the versions of all datasets and models, of each kind at most `limit` names.

    A document that can't be read is named in the result and hides no other.
    """
    unreadable: dict[str, str] = {}
    more = False

    async def read(kind: NameKind, name: str) -> list[NamedVersion]:
        document: Dataset | Model | None
        try:
            find = registry.find_dataset if kind == "dataset" else registry.find_model
            document = await find(name)
        except RegistryUnreadable as error:
            unreadable[f"{kind} {name}"] = error.message
            return []
        return [] if document is None else versions_of(document)

    reads = []
    for kind in KINDS:
        names, kind_has_more = await beginning(registry.names(kind), limit)
        more |= kind_has_more
        reads += [partial(read, kind, name) for name in names]
    found = await side_by_side(reads)
    return Names(chain.from_iterable(found), unreadable, more=more)


class Lineage:
    """Finds what came of what in one registry, whose names have been read.

    Raises the store's errors; a run that can't be read is a node that says so.
    """

    def __init__(self, registry: Registry, names: Names) -> None:
        self.names = names
        self._runs = Runs(registry)
        self._pushes = Pushes(registry.documents)
        self._known: dict[str, Node] = {}
        self._records: dict[str, Run] = {}

    async def run(self, run_id: str) -> Node:
        """Read a run as a node."""
        if (known := self._known.get(run_id)) is None:
            try:
                record = await self._runs.find(run_id)
                known = run_node(run_id, record)
                if record is not None:
                    self._records[run_id] = record
            except RegistryUnreadable as error:
                known = run_node(run_id, None, error.message)
            self._known[run_id] = known
        return known

    async def trace(
        self,
        roots: list[Node],
        ways: tuple[Way, ...],
        *,
        depth: int,
        revisions: bool = True,
        nodes_max: int = NODES_MAX,
    ) -> Graph:
        """Follow what the roots were made from and led to, at most `depth` steps.

        An earlier or later state of a pushed directory is no ingredient: by it one only gets to
        further ones of these. With `revisions` false they are left out.
        """
        graph = Graph(nodes_max)
        for root in roots:
            graph.add_root(root)
        for way in ways:
            await self._follow(graph, way, depth, revisions=revisions)
        graph.name(self.names)
        return graph

    async def _follow(self, graph: Graph, way: Way, depth: int, *, revisions: bool) -> None:
        asked: set[str] = set()
        revised: set[str] = set()
        front = dict.fromkeys(graph.roots, True)
        for _ in range(depth):
            reads = [
                partial(self._next, graph.nodes[key], way, graph.room, whole, revisions)
                for key, whole in front.items()
            ]
            found = chain.from_iterable(await side_by_side(reads))
            asked |= {key for key, whole in front.items() if whole}
            revised |= front.keys()
            front = self._take(graph, way, found, asked, revised)
            if not front or graph.is_full:
                break
        graph.unexplored |= front.keys()

    def _take(
        self,
        graph: Graph,
        way: Way,
        found: chain[tuple[Edge, Node]],
        asked: set[str],
        revised: set[str],
    ) -> dict[str, bool]:
        """Take in what was found; tell where to go on, and whether by more than revisions."""
        front: dict[str, bool] = {}
        for edge, node in found:
            if not graph.add(node):
                continue
            graph.connect(edge)
            whole = edge.kind != "revision"
            if node.key not in (asked if whole else revised):
                front[node.key] = front.get(node.key, False) or whole
        return front

    async def _next(
        self, node: Node, way: Way, room: int, whole: bool, revisions: bool
    ) -> list[tuple[Edge, Node]]:
        if node.kind == "run":
            return await self._next_to_run(node, way)
        snapshot_id = SnapshotId(node.title)
        found = await self._runs_of(snapshot_id, way, room) if whole else []
        if revisions:
            found += await self._revisions_of(snapshot_id, way, room)
        return found

    async def _next_to_run(self, node: Node, way: Way) -> list[tuple[Edge, Node]]:
        record = self._records.get(node.title)
        if way == "up":
            used = [] if record is None else [each.snapshot_id for each in record.data]
            return [
                (Edge(snapshot_node(each).key, node.key, "used"), snapshot_node(each))
                for each in used
            ]
        made = [] if record is None else [each.snapshot_id for each in record.outputs]
        made += [each.snapshot_id for each in self.names.made_by(node.title)]
        return [
            (Edge(node.key, snapshot_node(each).key, "made"), snapshot_node(each)) for each in made
        ]

    async def _runs_of(
        self, snapshot_id: SnapshotId, way: Way, room: int
    ) -> list[tuple[Edge, Node]]:
        kind: LinkKind = "made-by" if way == "up" else "used-by"
        linked, _ = await beginning(self._runs.linked(kind, snapshot_id), room + 1)
        said = [each.run for each in self.names.of(snapshot_id) if each.run and way == "up"]
        reads = [partial(self.run, run_id) for run_id in dict.fromkeys([*linked, *said])]
        nodes = [
            node
            for node in await side_by_side(reads, at_once=_RUNS_AT_ONCE)
            if node.title in said or self._is_linked(node, kind, snapshot_id)
        ]
        key = snapshot_node(snapshot_id).key
        return [
            (Edge(node.key, key, "made") if way == "up" else Edge(key, node.key, "used"), node)
            for node in nodes
        ]

    def _is_linked(self, node: Node, kind: LinkKind, snapshot_id: SnapshotId) -> bool:
        """Tell whether the record, which alone counts, says what a link to it says."""
        if (record := self._records.get(node.title)) is None:
            return "error" in node.details
        return record.is_linked(kind, snapshot_id)

    async def _revisions_of(
        self, snapshot_id: SnapshotId, way: Way, room: int
    ) -> list[tuple[Edge, Node]]:
        listed = self._pushes.of if way == "up" else self._pushes.after
        pushes, _ = await beginning(listed(snapshot_id), room + 1)
        others = [push.parent_id if way == "up" else push.snapshot_id for push in pushes]
        key = snapshot_node(snapshot_id).key
        found = []
        for other in dict.fromkeys(filter(None, others)):
            node = snapshot_node(other)
            ends = (node.key, key) if way == "up" else (key, node.key)
            found.append((Edge(*ends, "revision"), node))
        return found
