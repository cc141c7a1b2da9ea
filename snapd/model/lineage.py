"""What came of what: a graph of snapshots, the names they have, and the runs between them.

An edge leads from what there was to what came of it. The graph may have cycles, for the same bytes
may come again. `snapd.model.lineage_pictures` draws it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from snapd.model.datasets import Dataset, DatasetVersion
from snapd.model.ids import SnapshotId
from snapd.model.models import Model, ModelVersion
from snapd.model.references import NameKind
from snapd.model.runs import Run

NODES_MAX = 10_000
DEPTH_DEFAULT = 10
DEPTH_MAX = 1000

NodeKind: TypeAlias = Literal["snapshot", "run", "dataset", "model"]
EdgeKind: TypeAlias = Literal["used", "made", "revision", "names"]
"""A run used a snapshot or made it; a snapshot was pushed as the next state of another; a version
names a snapshot."""
Way: TypeAlias = Literal["up", "down"]
"""Towards what something was made from, or towards what was made from it."""


class Edge(NamedTuple):
    """From what there was to what came of it, both by their keys."""

    source: str
    target: str
    kind: EdgeKind

    def end(self, way: Way) -> str:
        """Tell the key at which a walk that way arrives by this edge."""
        return self.source if way == "up" else self.target


@dataclass(frozen=True, slots=True)
class Node:
    """A snapshot, a run, or a version of a dataset or a model; `title` is what people call it."""

    kind: NodeKind
    title: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Tell it from any other: `run:r7`, `snapshot:5f0c...`, `dataset:imagenet@v1.2.0`."""
        return f"{self.kind}:{self.title}"

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return {"key": self.key, "kind": self.kind, "title": self.title, **self.details}


@dataclass(frozen=True, slots=True)
class NamedVersion:
    """One version of a dataset or a model, seen from its snapshot."""

    kind: NameKind
    name: str
    version: str
    snapshot_id: SnapshotId
    at: str
    by: str
    note: str
    stage: str = ""
    in_production: bool = False
    run: str = ""
    """The run that made a model's version, as whoever added it said."""
    deprecated: bool = False

    @property
    def title(self) -> str:
        """`imagenet@v1.2.0`."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`; what is empty is left out."""
        document: dict[str, Any] = {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "snapshot_id": self.snapshot_id,
            "at": self.at,
            "by": self.by,
        }
        optional = {
            "note": self.note,
            "stage": self.stage,
            "in_production": self.in_production,
            "run": self.run,
            "deprecated": self.deprecated,
        }
        return document | {name: value for name, value in optional.items() if value}

    def node(self) -> Node:
        """Make the node of the graph."""
        known = {
            "stage": self.stage,
            "in_production": self.in_production,
            "deprecated": self.deprecated,
        }
        return Node(self.kind, self.title, {name: value for name, value in known.items() if value})


def versions_of(document: Dataset | Model) -> list[NamedVersion]:
    """List the versions of a dataset or a model."""
    if isinstance(document, Dataset):
        return [_named("dataset", document.name, each) for each in document.versions]
    return [
        replace(
            _named("model", document.name, each),
            stage=each.stage,
            in_production=each.stage == document.production,
            run=each.run,
        )
        for each in document.versions
    ]


def _named(kind: NameKind, name: str, version: DatasetVersion | ModelVersion) -> NamedVersion:
    return NamedVersion(
        kind,
        name,
        version.version,
        version.snapshot_id,
        version.at,
        version.by,
        version.note,
        deprecated=version.deprecated is not None,
    )


class Names:
    """The versions of a store's datasets and models, found by their snapshot or their run.

    `unreadable` says of which documents nothing is known, and why; `more`: there are more names
    than were looked through.
    """

    def __init__(
        self,
        versions: Iterable[NamedVersion],
        unreadable: Mapping[str, str] | None = None,
        *,
        more: bool = False,
    ) -> None:
        self.versions = tuple(versions)
        self.unreadable = dict(unreadable or {})
        self.more = more
        self._by_snapshot: dict[SnapshotId, list[NamedVersion]] = {}
        self._by_run: dict[str, list[NamedVersion]] = {}
        for each in self.versions:
            self._by_snapshot.setdefault(each.snapshot_id, []).append(each)
            if each.run:
                self._by_run.setdefault(each.run, []).append(each)

    def of(self, snapshot_id: SnapshotId) -> list[NamedVersion]:
        """List the versions that are this snapshot."""
        return self._by_snapshot.get(snapshot_id, [])

    def made_by(self, run_id: str) -> list[NamedVersion]:
        """List the models' versions that this run is said to have made."""
        return self._by_run.get(run_id, [])


class Graph:
    """Nodes and edges, at most `nodes_max` nodes, each once.

    `is_full`: there was no room for one more. `unexplored` are nodes whose neighbours were not
    asked for any more.
    """

    def __init__(self, nodes_max: int = NODES_MAX) -> None:
        self.nodes: dict[str, Node] = {}
        self.roots: list[str] = []
        self.unexplored: set[str] = set()
        self.is_full = False
        self._nodes_max = nodes_max
        self._edges: dict[Edge, None] = {}
        self._ways: dict[Way, dict[str, list[Edge]]] = {"up": {}, "down": {}}

    @property
    def room(self) -> int:
        """How many nodes more may come."""
        return self._nodes_max - len(self.nodes)

    @property
    def edges(self) -> list[Edge]:
        """All edges, in the order in which they were found."""
        return list(self._edges)

    def add(self, node: Node) -> bool:
        """Take a node in; False if it is not there and there is no room for it."""
        if node.key in self.nodes:
            return True
        if self.room <= 0:
            self.is_full = True
            return False
        self.nodes[node.key] = node
        return True

    def add_root(self, node: Node) -> None:
        """Take in what was asked for."""
        if self.add(node) and node.key not in self.roots:
            self.roots.append(node.key)

    def connect(self, edge: Edge) -> None:
        """Take an edge in; one to a node that found no room is left out, and so is a loop."""
        if edge in self._edges or edge.source == edge.target:
            return
        if edge.source in self.nodes and edge.target in self.nodes:
            self._edges[edge] = None
            self._ways["up"].setdefault(edge.target, []).append(edge)
            self._ways["down"].setdefault(edge.source, []).append(edge)

    def name(self, names: Names) -> None:
        """Take in the versions of all snapshots that are there."""
        for key, node in list(self.nodes.items()):
            if node.kind == "snapshot":
                for version in names.of(SnapshotId(node.title)):
                    if self.add(version.node()):
                        self.connect(Edge(version.node().key, key, "names"))

    def leading(self, key: str, way: Way) -> list[Edge]:
        """List the edges by which one gets on from a node; names are no step."""
        return [edge for edge in self._ways[way].get(key, ()) if edge.kind != "names"]

    def names_of(self, key: str) -> list[Node]:
        """List the versions that name a snapshot."""
        found = self._ways["up"].get(key, ())
        return [self.nodes[edge.source] for edge in found if edge.kind == "names"]

    def arrivals(self, way: Way) -> dict[str, str]:
        """Tell of each node that can be reached which one comes before it on a shortest way.

        Before a root it is an empty key.
        """
        came: dict[str, str] = dict.fromkeys(self.roots, "")
        waiting = deque(self.roots)
        while waiting:
            key = waiting.popleft()
            for edge in self.leading(key, way):
                if edge.end(way) not in came:
                    came[edge.end(way)] = key
                    waiting.append(edge.end(way))
        return came

    @property
    def unreadable(self) -> list[str]:
        """Name the runs of which it is not known what they used and made."""
        return [node.title for node in self.nodes.values() if "error" in node.details]

    @property
    def is_whole(self) -> bool:
        """Tell whether nothing was left out."""
        return not (self.is_full or self.unexplored or self.unreadable)

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return {
            "roots": self.roots,
            "nodes": [node.to_json() for node in self.nodes.values()],
            "edges": [edge._asdict() for edge in self._edges],
            "unexplored": sorted(self.unexplored),
            "complete": self.is_whole,
        }


def snapshot_node(snapshot_id: SnapshotId) -> Node:
    """Make the node of a snapshot."""
    return Node("snapshot", snapshot_id)


def run_node(run_id: str, run: Run | None, problem: str = "") -> Node:
    """Make the node of a run; None: it was never recorded, or there is a `problem` with that."""
    if run is None:
        return Node("run", run_id, {"error": problem} if problem else {"recorded": False})
    details: dict[str, Any] = {"at": run.started_at or run.at, "by": run.by}
    if run.code is not None:
        details["commit"] = run.code.commit
        details |= {"dirty": True} if run.code.dirty else {}
        details |= {"repository": run.code.repository} if run.code.repository else {}
    return Node("run", run_id, details)


@dataclass(frozen=True, slots=True)
class Impact:
    """A version in production that came of what was asked about, and by which steps."""

    version: NamedVersion
    steps: tuple[Node, ...]

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return {**self.version.to_json(), "steps": [node.key for node in self.steps]}


def impact(graph: Graph, names: Names) -> list[Impact]:
    """List the models' versions in production among all that came of the roots."""
    found = []
    came = graph.arrivals("down")
    for key, node in graph.nodes.items():
        versions = names.of(SnapshotId(node.title)) if node.kind == "snapshot" else []
        produced = [version for version in versions if version.in_production]
        if not produced or key not in came:
            continue
        steps = [key]
        while before := came[steps[-1]]:
            steps.append(before)
        way = tuple(graph.nodes[step] for step in reversed(steps))
        found += [Impact(version, way) for version in produced]
    return sorted(found, key=lambda each: (each.version.name, each.version.version))
