"""`snapctl leases`."""

from __future__ import annotations

import time
from typing import Any

import click

from snapctl.context import Context
from snapctl.frame import (
    cache_dir_option,
    config_option,
    reference_store_option,
    standalone_option,
    verb,
)
from snapctl.holding import keeper
from snapctl.obtaining import works_here
from snapctl.references import resolve_anywhere
from snapd.model.leases import Lease
from snapd.model.units import format_duration

_UNTIL = {
    "process": "it ends",
    "link": "it points elsewhere",
    "pod": "it is gone",
    "pin": "unpinned",
    "follow": "let go by it",
}


@verb("leases", examples=["snapctl leases", "snapctl leases --id ID --json"])
@click.option("--id", "snapshot_id", metavar="ID", help="Only those of this snapshot.")
@reference_store_option
@standalone_option
@cache_dir_option
@config_option
def command(
    context: Context,
    snapshot_id: str | None,
    store: str | None,
    standalone: str,
    cache_dir: str | None,
) -> None:
    """Show who holds which snapshots and why; nothing that is held is evicted."""
    wanted = resolve_anywhere(context, snapshot_id, store) if snapshot_id else None
    here = works_here(context, standalone)
    found = [
        lease
        for lease in keeper(context, here=here, cache_dir=cache_dir).leases()
        if wanted in (None, lease.snapshot_id)
    ]
    if context.output.as_json:
        context.output.print_json({"leases": [_document(lease) for lease in found]})
        return
    now = time.time()  # noqa: TID251 - only for showing how long ago something was
    columns = ("SNAPSHOT", "KIND", "HOLDER", "SINCE", "UNTIL", "WHY")
    context.output.table(columns, [_row(lease, now) for lease in found])


def _document(lease: Lease) -> dict[str, Any]:
    return lease.to_json() | {"holder": lease.holder, "description": lease.describe()}


def _row(lease: Lease, now: float) -> tuple[str, ...]:
    until = _UNTIL.get(lease.kind, "")
    if lease.until is not None:
        until = f"in {format_duration(max(0.0, lease.until - now))}"
    return (
        lease.snapshot_id[:12],
        lease.kind,
        lease.holder,
        f"{format_duration(max(0.0, now - lease.since))} ago",
        until,
        lease.reason or "-",
    )
