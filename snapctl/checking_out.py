"""Find a snapshot in the caches of this node, lay it out and print where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snapctl.caches import PlaceOfTrees, places_of_trees
from snapctl.holding import DaemonKeeper, Keeper, OwnKeeper, keeper_of
from snapctl.laying_out import lay_out, print_report
from snapctl.used import note_use
from snapd.model.errors import SnapshotNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from snapctl.context import Context
    from snapd.model.checkouts import CheckoutOptions
    from snapd.model.ids import SnapshotId


def check_out(
    context: Context,
    snapshot_id: SnapshotId,
    dest: Path,
    options: CheckoutOptions,
    cache_dir: str | None,
) -> None:
    """Lay a cached snapshot out as `lay_out` does, note its use, and print what came of it.

    Raises `SnapshotNotFound` naming the caches if none of them has the complete tree.
    """
    tree, keeper = _find(context, snapshot_id, cache_dir)
    report = lay_out(context, snapshot_id, tree, dest, options, keeper=keeper)
    if not options.dryrun:
        note_use(context, snapshot_id, path=str(dest.absolute()))
    if context.output.as_json:
        context.output.print_json(report.to_json())
    else:
        print_report(context.output, report)


def _find(context: Context, snapshot_id: SnapshotId, cache_dir: str | None) -> tuple[Path, Keeper]:
    """Choose the first cache that has the tree, which appears whole or not at all."""
    searched = []
    for place in places_of_trees(context, cache_dir):
        tree = place.directory / snapshot_id
        if tree.is_dir():
            return tree, _keeper(context, place)
        searched.append(str(place.directory))
    raise SnapshotNotFound(
        f"no cache here has the snapshot {snapshot_id} (looked in {', '.join(searched) or 'none'})",
        hint="Pull it first: snapctl pull --id ID --store URI.",
        id=snapshot_id,
        caches=searched,
    )


def _keeper(context: Context, place: PlaceOfTrees) -> Keeper:
    if place.is_daemons is None:
        return keeper_of(context, place.directory)
    if place.is_daemons:
        return DaemonKeeper(context.client())
    return OwnKeeper(place.directory.parent, context.settings)
