"""`snapctl cache pin` and `snapctl cache unpin`."""

from __future__ import annotations

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
from snapd.model.errors import LeaseNotFound, LeaseOfAnother
from snapd.model.leases import LeaseRequest


@verb("pin", examples=["snapctl cache pin ID --reason 'baseline of the release'"])
@click.argument("snapshot", metavar="ID")
@reference_store_option
@click.option("--reason", metavar="TEXT", default="", help="Why, for whoever wonders later.")
@standalone_option
@cache_dir_option
@config_option
def pin(
    context: Context,
    snapshot: str,
    store: str | None,
    reason: str,
    standalone: str,
    cache_dir: str | None,
) -> None:
    """Keep a snapshot in the cache until it is unpinned.

    Pinning it again replaces the reason.
    """
    request = LeaseRequest(resolve_anywhere(context, snapshot, store), "pin", reason=reason)
    request.check()
    here = works_here(context, standalone)
    lease = keeper(context, here=here, cache_dir=cache_dir).add(request)
    if context.output.as_json:
        context.output.print_json(lease.to_json())
    else:
        context.output.line(f"{lease.snapshot_id} pinned")


@verb("unpin", examples=["snapctl cache unpin ID"])
@click.argument("snapshot", metavar="ID")
@reference_store_option
@standalone_option
@cache_dir_option
@config_option
def unpin(
    context: Context, snapshot: str, store: str | None, standalone: str, cache_dir: str | None
) -> None:
    """Let a snapshot go that was pinned; others may still hold it."""
    wanted = resolve_anywhere(context, snapshot, store)
    holder = keeper(context, here=works_here(context, standalone), cache_dir=cache_dir)
    pins = [each for each in holder.leases() if each.kind == "pin" and each.snapshot_id == wanted]
    if not pins:
        raise LeaseNotFound(f"the snapshot {wanted} is not pinned", id=wanted)
    mine, refusal = [], None
    for each in pins:
        try:
            mine.append(holder.remove(each.lease_id))
        except LeaseOfAnother as error:
            refusal = error
    if refusal is not None:
        if not mine:
            raise refusal
        context.output.note("it stays pinned by another user")
    if context.output.as_json:
        context.output.print_json(pins[-1].to_json())
    else:
        context.output.line(f"{wanted} unpinned")
