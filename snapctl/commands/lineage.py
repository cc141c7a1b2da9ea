"""`snapctl lineage`."""

from __future__ import annotations

from typing import Any, get_args

import click

from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.registering import with_registry
from snapctl.tracing import note_gaps, roots_of
from snapd.model.errors import SnapshotNotFound, SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.layout import manifest_key
from snapd.model.lineage import (
    DEPTH_DEFAULT,
    DEPTH_MAX,
    NODES_MAX,
    Graph,
    Impact,
    Names,
    Node,
    Way,
    impact,
)
from snapd.model.lineage_pictures import dot, mermaid, title, tree
from snapd.registry.lineage import Lineage, read_names
from snapd.registry.names import Registry

_WAYS: dict[str, tuple[Way, ...]] = {"both": ("up", "down"), "up": ("up",), "down": ("down",)}
_TOLD = 10
_DRAWINGS = {"mermaid": mermaid, "dot": dot}
assert set(get_args(Way)) < set(_WAYS)


@verb(
    "lineage",
    examples=[
        "snapctl lineage iris_clf@production --store s3://models/prod",
        "snapctl lineage imagenet@v1.2.0 --direction down --depth 3",
        "snapctl lineage run:r7 --format mermaid > lineage.mmd",
        "snapctl lineage ID --format dot | dot -Tsvg > lineage.svg",
        "snapctl lineage imagenet@v1.2.0 --impact",
    ],
)
@click.argument("what", metavar="NAME[@VERSION]|ID|RUN")
@store_option()
@click.option(
    "--direction",
    type=click.Choice(["both", "up", "down"]),
    default="both",
    show_default=True,
    help="up: what it was made from; down: what was made from it.",
)
@click.option(
    "--depth",
    type=click.IntRange(1, DEPTH_MAX),
    default=None,
    help=f"Follow so many steps; {DEPTH_DEFAULT} if not given, with --impact {DEPTH_MAX}.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "json", "mermaid", "dot"]),
    default="tree",
    show_default=True,
    help="How it is printed.",
)
@click.option("--impact", "only_impact", is_flag=True, help="Only the models in production.")
@config_option
def command(
    context: Context,
    what: str,
    store: str,
    direction: str,
    depth: int | None,
    form: str,
    only_impact: bool,
) -> None:
    """Show what a snapshot or a run was made from, and what was made from it.

    Runs lead from their data to their outputs; a push leads from what was pushed from the same
    directory before. A name without a version means all its versions. What was not looked at any
    more ends in "...".

    With --impact it lists the models whose version in production depends on it, through any number
    of runs, and how.
    """
    context.as_json = context.as_json or form == "json"
    ways: tuple[Way, ...] = ("down",) if only_impact else _WAYS[direction]
    steps = depth or (DEPTH_MAX if only_impact else DEPTH_DEFAULT)

    async def look(registry: Registry) -> tuple[Graph, Names]:
        names = await read_names(registry)
        lineage = Lineage(registry, names)
        roots = await roots_of(context, registry, lineage, what)
        graph = await lineage.trace(roots, ways, depth=steps, revisions=not only_impact)
        if not graph.edges:
            await _check_known(registry, roots)
        return graph, names

    graph, names = with_registry(context, store, look)
    note_gaps(context, names)
    if only_impact and graph.unreadable:
        context.output.note(f"what these runs made is not known: {_some(graph.unreadable)}")
    if graph.is_full:
        context.output.note(f"only the first {NODES_MAX} that were found are looked at")
    elif only_impact and graph.unexplored:
        context.output.note(f"not followed beyond {steps} steps; --depth goes further")
    if only_impact:
        is_whole = _are_whole(names) and graph.is_whole
        _print_impact(context, what, impact(graph, names), is_whole=is_whole)
    elif context.as_json:
        found = {"depth": steps, "direction": direction, "names_complete": _are_whole(names)}
        context.output.print_json(graph.to_json() | found)
    else:
        draw = _DRAWINGS.get(form)
        for line in draw(graph) if draw else tree(graph, ways):
            context.output.line(line)


async def _check_known(registry: Registry, roots: list[Node]) -> None:
    """Raise `SnapshotNotFound` for an ID of which there is nothing at all."""
    for root in roots:
        if root.kind != "snapshot":
            continue
        [found] = await registry.store.head_batch([manifest_key(SnapshotId(root.title))])
        if isinstance(found, SnapsyncError):
            raise found
        if found is None:
            raise SnapshotNotFound(
                f"{registry.store.uri} knows nothing of a snapshot {root.title}",
                id=root.title,
                store=str(registry.store.uri),
            )


def _some(run_ids: list[str]) -> str:
    return ", ".join(run_ids[:_TOLD]) + (", ..." if len(run_ids) > _TOLD else "")


def _are_whole(names: Names) -> bool:
    return not (names.more or names.unreadable)


def _print_impact(context: Context, what: str, found: list[Impact], *, is_whole: bool) -> None:
    if context.as_json:
        document: dict[str, Any] = {
            "models": [each.to_json() for each in found],
            "complete": is_whole,
        }
        context.output.print_json(document)
        return
    if not found:
        least = "" if is_whole else ", as far as could be looked"
        context.output.note(f"no model in production depends on {what}{least}")
        return
    rows = [
        (each.version.title, each.version.stage, each.version.snapshot_id, _steps(each))
        for each in found
    ]
    context.output.table(("MODEL", "STAGE", "SNAPSHOT", "THROUGH"), rows)


def _steps(found: Impact) -> str:
    return " -> ".join(title(node) for node in found.steps if node.kind == "run") or "-"
