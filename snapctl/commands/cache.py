"""`snapctl cache`."""

from __future__ import annotations

import time

import click

from snapctl.commands.pins import pin, unpin
from snapctl.commands.sweeping import evict, gc
from snapctl.context import Context
from snapctl.frame import HelpEnding, verb
from snapd.model.jobs import SnapshotView
from snapd.model.units import format_duration, format_size


class _CacheGroup(click.Group, HelpEnding):
    """`snapctl cache ...`, with the same end of its help."""


@click.group("cache", cls=_CacheGroup, examples=["snapctl cache ls"])
def command() -> None:
    """Look into the node's cache."""


@verb("ls", examples=["snapctl cache ls", "snapctl cache ls --json"])
def ls(context: Context) -> None:
    """List the complete snapshots of the cache, the one used last first."""
    snapshots = sorted(context.client().snapshots(), key=lambda found: -found.used_at)
    if context.output.as_json:
        listed = [snapshot.to_json() for snapshot in snapshots]
        context.output.print_json({"snapshots": listed})
        return
    columns = ("SNAPSHOT", "SIZE", "FILES", "USED", "STORE")
    now = time.time()  # noqa: TID251 - only for showing how long ago something was
    context.output.table(columns, [_row(snapshot, now) for snapshot in snapshots])


def _row(snapshot: SnapshotView, now: float) -> tuple[str, ...]:
    ago = format_duration(max(0.0, now - snapshot.used_at))
    return (
        snapshot.snapshot_id,
        format_size(snapshot.size_bytes),
        str(snapshot.files),
        f"{ago} ago",
        snapshot.store,
    )


command.add_command(ls)
command.add_command(pin)
command.add_command(unpin)
command.add_command(gc)
command.add_command(evict)
