"""From what a person typed for a snapshot to its ID: an ID, or a reference that is resolved once.

Whoever reads the store resolves: a command that pulls through the daemon asks the daemon, so that
it needs neither credentials of its own nor the libraries that speak to stores; a command that opens
the store itself looks there, with the caller's credentials. What is pulled is the ID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snapctl.used import note_use
from snapd.model.errors import DaemonNotRunning, DaemonStopping, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.references import Reference, Resolved, parse_id_or_reference

if TYPE_CHECKING:
    from snapctl.context import Context


def resolve(
    context: Context, named: SnapshotId | Reference, store: str | None, *, here: bool
) -> SnapshotId:
    """Give the ID itself, or that to which a reference leads, and say on stderr where it led.

    `here`: in this process, with the caller's credentials; else the daemon looks. Raises
    `UsageError` if a reference is given without a store, and what resolving raises.
    """
    if not isinstance(named, Reference):
        return named
    return look_up(context, named, store, here=here).snapshot_id


def look_up(context: Context, named: Reference, store: str | None, *, here: bool) -> Resolved:
    """Tell where a reference leads, as `resolve` does."""
    if here:
        from functools import partial

        from snapctl.registering import with_registry
        from snapd.registry.names import Registry

        look = partial(Registry.resolve, reference=named)
        resolved = with_registry(context, _needed(store, named), look)
    else:
        resolved = context.client().resolve(str(named), _needed(store, named))
    _tell(context, resolved)
    return resolved


def resolve_here(context: Context, text: str, store: str | None) -> SnapshotId:
    """Read an ID or a reference and resolve it in this process; see `resolve`."""
    return resolve(context, parse_id_or_reference(text), store, here=True)


def resolve_anywhere(context: Context, text: str, store: str | None) -> SnapshotId:
    """Read an ID or a reference and resolve it by the daemon, or here if none runs."""
    named = parse_id_or_reference(text)
    try:
        return resolve(context, named, store, here=False)
    except (DaemonNotRunning, DaemonStopping):
        return resolve(context, named, store, here=True)


def _needed(store: str | None, reference: Reference) -> str:
    if not store:
        raise UsageError(
            f"{reference} is looked up in a store, and none is named",
            hint="Name it with --store or in SNAPSYNC_STORE.",
        )
    from snapd.model.uris import parse_store_uri

    return str(parse_store_uri(store))


def _tell(context: Context, resolved: Resolved) -> None:
    note_use(context, resolved.snapshot_id, reference=f"{resolved.name}@{resolved.version}")
    context.output.note(resolved.line())
    if resolved.deprecated is not None:
        why = f": {resolved.deprecated}" if resolved.deprecated else ""
        context.output.note(f"{resolved.name}@{resolved.version} is deprecated{why}")
