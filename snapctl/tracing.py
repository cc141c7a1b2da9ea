"""What `lineage`, `whence` and `audit` share: what a person means, and what could not be read."""

from __future__ import annotations

from snapctl.context import Context
from snapd.model.datasets import nearest
from snapd.model.errors import InvalidReference, NameNotFound, UsageError
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.lineage import Names, Node, snapshot_node
from snapd.model.names import parse_name, shown
from snapd.model.references import parse_reference
from snapd.registry.lineage import Lineage
from snapd.registry.names import LISTED_MAX, Registry

_PREFIXES = ("dataset", "model", "run")


async def roots_of(context: Context, registry: Registry, lineage: Lineage, text: str) -> list[Node]:
    """Find what is meant by an ID, a reference, the name of a dataset or a model, or a run's ID.

    A name without a version means all of its versions. `dataset:`, `model:` or `run:` says which,
    where there are several of that name. Raises `NameNotFound` naming the nearest.
    """
    if is_digest(text.lower()):
        return [snapshot_node(SnapshotId(text.lower()))]
    if "@" in text:
        resolved = await registry.resolve(parse_reference(text))
        context.output.note(resolved.line())
        return [snapshot_node(resolved.snapshot_id)]
    prefix, colon, name = text.partition(":")
    if colon and prefix not in _PREFIXES:
        raise UsageError(f"{shown(text)}: {shown(prefix)} is none of {', '.join(_PREFIXES)}")
    return await _named(
        registry, lineage, parse_name(name if colon else text), prefix * bool(colon)
    )


async def _named(registry: Registry, lineage: Lineage, name: str, prefix: str) -> list[Node]:
    meant: dict[str, list[Node]] = {}
    for version in lineage.names.versions:
        if version.name == name and prefix in ("", version.kind):
            meant.setdefault(version.kind, []).append(snapshot_node(version.snapshot_id))
    if prefix in ("", "run"):
        run = await lineage.run(name)
        if run.details.get("recorded") is not False or lineage.names.made_by(name):
            meant["run"] = [run]
    if len(meant) > 1:
        raise InvalidReference(
            f"{name} is the name of {' and of '.join(f'a {kind}' for kind in meant)}",
            hint=f"Say which: {' or '.join(f'{kind}:{name}' for kind in meant)}.",
        )
    for nodes in meant.values():
        return nodes
    near = nearest(name, sorted({version.name for version in lineage.names.versions}))
    said = f" (did you mean {', '.join(near)}?)" if near else ""
    what = prefix or "dataset, model or run"
    raise NameNotFound(
        f"{registry.store.uri} has no {what} {name!r}{said}",
        name=name,
        store=str(registry.store.uri),
        nearest=list(near),
    )


def note_gaps(context: Context, names: Names) -> None:
    """Say on stderr what of the names could not be looked at."""
    for what, message in names.unreadable.items():
        context.output.note(f"{what} is left out: {message}")
    if names.more:
        context.output.note(f"of datasets or models only {LISTED_MAX} names were looked through")
