"""A graph of lineage as people look at it: a tree in a terminal, Mermaid, Graphviz.

Names in a registry are harmless, but records are written by many hands: whatever stands in a label
is escaped as the language of the picture has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from snapd.model.lineage import Edge, Graph, Node, Way

_SHORT = 12
_MERMAID = str.maketrans(
    {
        "#": "#35;",
        "&": "#amp;",
        '"': "#quot;",
        "<": "#lt;",
        ">": "#gt;",
        "`": "#96;",
        "\\": "#92;",
    }
)
_TITLES: dict[Way, str] = {"up": "made from", "down": "led to"}


def tree(graph: Graph, ways: tuple[Way, ...] = ("up", "down")) -> Iterator[str]:
    """Draw each root with what it was made from and what it led to, below each other.

    What is there twice is drawn once and named the second time.
    """
    for root in graph.roots:
        yield _line(graph, root)
        grown: list[tuple[Way, list[Edge]]] = [(way, graph.leading(root, way)) for way in ways]
        shown = [(way, edges) for way, edges in grown if edges]
        for number, (way, edges) in enumerate(shown, start=1):
            corner, bar = ("└─ ", "   ") if number == len(shown) else ("├─ ", "│  ")
            yield f"{corner}{_TITLES[way]}"
            yield from _branches(graph, edges, way, bar, {root})


def _branches(
    graph: Graph, edges: list[Edge], way: Way, indent: str, drawn: set[str]
) -> Iterator[str]:
    """Draw what the edges lead to; a stack and no recursion, for lineages are deep."""
    stack = [(indent, list(edges))]
    while stack:
        indent, rest = stack[-1]
        if not rest:
            stack.pop()
            continue
        edge = rest.pop(0)
        key = edge.end(way)
        corner, bar = ("├─ ", "│  ") if rest else ("└─ ", "   ")
        word = {"revision": "before: " if way == "up" else "next: "}.get(edge.kind, "")
        below = graph.leading(key, way)
        if key in drawn:
            yield f"{indent}{corner}{word}{_line(graph, key)}" + (" (see above)" if below else "")
            continue
        drawn.add(key)
        yield f"{indent}{corner}{word}{_line(graph, key)}"
        stack.append((indent + bar, below))


def mermaid(graph: Graph) -> Iterator[str]:
    """Draw a flowchart of Mermaid, line by line."""
    numbers = _numbers(graph)
    yield "flowchart LR"
    for key, number in numbers.items():
        text = "<br>".join(part.translate(_MERMAID) for part in _label(graph, key))
        before, after = ('(["', '"])') if graph.nodes[key].kind == "run" else ('["', '"]')
        yield f"  n{number}{before}{text}{after}"
    for edge in _steps(graph):
        arrow = "-.->" if edge.kind == "revision" else "-->"
        yield f"  n{numbers[edge.source]} {arrow} n{numbers[edge.target]}"
    for key in graph.roots:
        yield f"  style n{numbers[key]} stroke-width:3px"


def dot(graph: Graph) -> Iterator[str]:
    """Draw a digraph of Graphviz, line by line."""
    numbers = _numbers(graph)
    yield "digraph lineage {"
    yield "  rankdir=LR;"
    yield "  node [shape=box];"
    for key, number in numbers.items():
        text = "\\n".join(_quoted(part) for part in _label(graph, key))
        style = ", style=rounded" if graph.nodes[key].kind == "run" else ""
        style += ", penwidth=3" if key in graph.roots else ""
        yield f'  n{number} [label="{text}"{style}];'
    for edge in _steps(graph):
        style = " [style=dashed]" if edge.kind == "revision" else ""
        yield f"  n{numbers[edge.source]} -> n{numbers[edge.target]}{style};"
    yield "}"


def title(node: Node) -> str:
    """Say a node in one line: `iris_clf@v0.2.0 (production)`, `run r7 (commit 1a2b3c4, dirty)`."""
    details = node.details
    if node.kind == "run":
        words = [f"commit {details['commit'][:_SHORT]}"] if "commit" in details else []
        words += ["dirty"] if details.get("dirty") else []
        words += ["not recorded"] if details.get("recorded") is False else []
        words += ["unreadable"] if "error" in details else []
        return _plain(f"run {node.title}" + (f" ({', '.join(words)})" if words else ""))
    words = [details["stage"]] if details.get("stage") else []
    words += ["deprecated"] if details.get("deprecated") else []
    return _plain(node.title + (f" ({', '.join(words)})" if words else ""))


def _line(graph: Graph, key: str) -> str:
    names = ", ".join(title(name) for name in graph.names_of(key))
    said = title(graph.nodes[key])
    more = " ..." if key in graph.unexplored else ""
    return (f"{names}  {said}" if names else said) + more


def _label(graph: Graph, key: str) -> list[str]:
    """Give the lines of a label: the names, or else the ID or the run."""
    node = graph.nodes[key]
    said = _plain(node.title[:_SHORT]) if node.kind == "snapshot" else title(node)
    more = ["..."] if key in graph.unexplored else []
    return [*(title(name) for name in graph.names_of(key)), said, *more]


def _numbers(graph: Graph) -> dict[str, int]:
    """Number what is drawn; names stand in the labels of their snapshots."""
    drawn = [key for key, node in graph.nodes.items() if node.kind in ("snapshot", "run")]
    return {key: number for number, key in enumerate(drawn, start=1)}


def _steps(graph: Graph) -> list[Edge]:
    return [edge for edge in graph.edges if edge.kind != "names"]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def _plain(text: str) -> str:
    """Fit a text into one line, without anything that a terminal obeys."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
