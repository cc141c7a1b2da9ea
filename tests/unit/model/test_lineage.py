from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from snapd.model.datasets import Dataset
from snapd.model.lineage import (
    Edge,
    Graph,
    Names,
    Node,
    impact,
    run_node,
    snapshot_node,
    versions_of,
)
from snapd.model.lineage_pictures import dot, mermaid, title, tree
from snapd.model.models import Model
from snapd.model.run_parts import Code
from snapd.model.runs import Run
from snapd.model.stages import NewVersion, add, deprecate, move, new_model
from tests.unit.model.registering import author, snapshot, v

RAW, DATA, OLD, NEW = (snapshot(text) for text in ("raw", "data", "old", "new"))


def run(run_id: str, commit: str = "", *, dirty: bool = False) -> Node:
    code = Code(commit, dirty) if commit else None
    return run_node(run_id, Run(run_id, "2026-03-01T09:00:00Z", "ann@host", "c1", code=code))


def iris() -> Model:
    model = new_model("iris_clf")
    for number, made in ((1, OLD), (2, NEW)):
        new = NewVersion(made, run=f"train-{number}")
        model = add(model, v(number), new, author())
        model = move(model, v(number), "production", author())
    return deprecate(model, v(1), author("bad labels"))


def names() -> Names:
    dataset = Dataset("imagenet").add(v(1), DATA, author("labels of March"))
    return Names([*versions_of(dataset), *versions_of(iris())])


def lineage() -> Graph:
    """Raw data was cleaned, and two models were trained from what came of it."""
    graph = Graph()
    graph.add_root(snapshot_node(DATA))
    nodes = [snapshot_node(each) for each in (RAW, DATA, OLD, NEW)]
    nodes += [
        run("clean", "1a2b3c4d5e6f7a8b", dirty=True),
        run("train-1"),
        run_node("train-2", None),
    ]
    for node in nodes:
        assert graph.add(node)
    raw, data, old, new = (snapshot_node(each).key for each in (RAW, DATA, OLD, NEW))
    steps = [raw, "run:clean", data]
    for first, second in pairwise(steps):
        graph.connect(Edge(first, second, "used" if second.startswith("run") else "made"))
    for run_id, made in (("train-1", old), ("train-2", new)):
        graph.connect(Edge(data, f"run:{run_id}", "used"))
        graph.connect(Edge(f"run:{run_id}", made, "made"))
    graph.name(names())
    return graph


def test_a_tree_shows_both_ways() -> None:
    assert list(tree(lineage())) == [
        f"imagenet@v1.0.0  {DATA}",
        "├─ made from",
        "│  └─ run clean (commit 1a2b3c4d5e6f, dirty)",
        f"│     └─ {RAW}",
        "└─ led to",
        "   ├─ run train-1",
        f"   │  └─ iris_clf@v1.0.0 (archived, deprecated)  {OLD}",
        "   └─ run train-2 (not recorded)",
        f"      └─ iris_clf@v2.0.0 (production)  {NEW}",
    ]
    assert list(tree(lineage(), ("up",)))[1:] == [
        "└─ made from",
        "   └─ run clean (commit 1a2b3c4d5e6f, dirty)",
        f"      └─ {RAW}",
    ]


def test_impact_names_what_is_in_production_and_how() -> None:
    [found] = impact(lineage(), names())
    assert found.version.title == "iris_clf@v2.0.0"
    assert [node.title for node in found.steps] == [DATA, "train-2", NEW]
    assert found.to_json()["steps"] == [f"snapshot:{DATA}", "run:train-2", f"snapshot:{NEW}"]


def test_names_are_found_by_snapshot_and_by_run() -> None:
    found = names()
    assert [version.title for version in found.of(DATA)] == ["imagenet@v1.0.0"]
    assert [version.snapshot_id for version in found.made_by("train-1")] == [OLD]
    assert (found.of(RAW), found.made_by("x")) == ([], [])
    [told] = found.of(DATA)
    assert told.to_json()["note"] == "labels of March"


def test_a_cycle_and_a_diamond_are_drawn_once() -> None:
    graph = Graph()
    nodes = {name: Node("snapshot", name) for name in "abcd"}
    graph.add_root(nodes["a"])
    for node in nodes.values():
        graph.add(node)
    for first, second in ("ab", "ac", "bd", "cd", "da", "aa"):
        graph.connect(Edge(nodes[first].key, nodes[second].key, "revision"))
    assert Edge("snapshot:a", "snapshot:a", "revision") not in graph.edges
    assert list(tree(graph, ("down",))) == [
        "a",
        "└─ led to",
        "   ├─ next: b",
        "   │  └─ next: d",
        "   │     └─ next: a (see above)",
        "   └─ next: c",
        "      └─ next: d (see above)",
    ]
    came = graph.arrivals("down")
    assert (came["snapshot:d"], came["snapshot:b"], came["snapshot:a"]) == (
        "snapshot:b",
        "snapshot:a",
        "",
    )
    assert "snapshot:x" not in came
    assert len([line for line in dot(graph) if "->" in line]) == 5


def test_a_graph_has_a_bound() -> None:
    graph = Graph(nodes_max=2)
    graph.add_root(Node("snapshot", "a"))
    assert graph.add(Node("run", "b"))
    assert graph.room == 0
    assert [graph.add(Node("run", "b")), graph.is_full] == [True, False], "it is there"
    assert [graph.add(Node("run", "c")), graph.is_full] == [False, True]
    graph.connect(Edge("snapshot:a", "run:c", "used"))
    graph.connect(Edge("snapshot:a", "run:b", "used"))
    graph.unexplored.add("run:b")
    assert [edge.target for edge in graph.edges] == ["run:b"]
    assert list(tree(graph))[-1].endswith("run b ...")
    assert graph.to_json()["complete"] is False
    assert [node["key"] for node in graph.to_json()["nodes"]] == ["snapshot:a", "run:b"]


def test_mermaid_and_dot_fold_names_into_their_snapshots() -> None:
    assert list(mermaid(lineage())) == [
        "flowchart LR",
        f'  n1["imagenet@v1.0.0<br>{DATA[:12]}"]',
        f'  n2["{RAW[:12]}"]',
        f'  n3["iris_clf@v1.0.0 (archived, deprecated)<br>{OLD[:12]}"]',
        f'  n4["iris_clf@v2.0.0 (production)<br>{NEW[:12]}"]',
        '  n5(["run clean (commit 1a2b3c4d5e6f, dirty)"])',
        '  n6(["run train-1"])',
        '  n7(["run train-2 (not recorded)"])',
        "  n2 --> n5",
        "  n5 --> n1",
        "  n1 --> n6",
        "  n6 --> n3",
        "  n1 --> n7",
        "  n7 --> n4",
        "  style n1 stroke-width:3px",
    ]
    drawn = list(dot(lineage()))
    assert (drawn[0], drawn[-1]) == ("digraph lineage {", "}")
    assert f'  n1 [label="imagenet@v1.0.0\\n{DATA[:12]}", penwidth=3];' in drawn
    assert '  n6 [label="run train-1", style=rounded];' in drawn
    assert "  n7 -> n4;" in drawn


NASTY = ['a"b]c[d', "x\ny", "end", "`md`", "#quot;", "<b>&amp;", "back\\slash", "\\", '\\"', "\x1b"]


@given(st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_whatever_stands_in_a_label_ends_neither_it_nor_the_line(text: str) -> None:
    graph = Graph()
    graph.add_root(Node("run", text, {"commit": text}))
    snapshot = Node("snapshot", text)
    graph.add(snapshot)
    graph.connect(Edge(f"run:{text}", snapshot.key, "made"))
    [_, first, second, arrow, style] = mermaid(graph)
    for line in (first, second):
        inside = line[line.index('"') + 1 : line.rindex('"')]
        assert not set(inside) & set('"`<>\\')
        assert inside.isprintable()
        assert all(part.split(";")[0].isalnum() for part in inside.split("#")[1:])
    assert (arrow, style) == ("  n1 --> n2", "  style n1 stroke-width:3px")
    lines = list(dot(graph))
    assert len(lines) == 7
    inside = lines[4][lines[4].index('"') + 1 : lines[4].rindex('"')]
    assert '"' not in inside.replace("\\\\", "").replace('\\"', "")
    assert not inside.replace("\\\\", "").endswith("\\")
    assert all(line.isprintable() for line in tree(graph))


def test_a_run_that_cannot_be_read_says_so() -> None:
    assert title(run_node("r", None, "damaged")) == "run r (unreadable)"
    assert run_node("r", None, "damaged").to_json()["error"] == "damaged"


def test_what_a_run_made_that_cannot_be_read_is_not_known_to_be_nothing() -> None:
    graph = Graph()
    graph.add_root(snapshot_node(DATA))
    graph.add(run_node("unrecorded", None))
    assert graph.is_whole
    graph.add(run_node("damaged", None, "it is no JSON"))
    assert (graph.unreadable, graph.is_whole) == (["damaged"], False)
    assert graph.to_json()["complete"] is False
