"""`snapctl pull`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snapctl.awaiting import Patience
from snapctl.context import Context
from snapctl.frame import (
    cache_dir_option,
    config_option,
    dest_argument,
    id_option,
    patience_options,
    standalone_option,
    store_option,
    timeout_option,
    verb,
)
from snapctl.holding import Keeper, keeper
from snapctl.obtaining import obtain, works_here
from snapctl.progress import seconds_taken
from snapctl.references import look_up
from snapctl.used import note_use
from snapd.model.errors import UsageError
from snapd.model.ids import parse_snapshot_id
from snapd.model.jobs import JobView, Priority, PullRequest
from snapd.model.leases import LeaseRequest, parse_pod_uid
from snapd.model.references import Reference, Resolved, parse_id_or_reference
from snapd.model.uris import parse_store_uri

if TYPE_CHECKING:
    from snapd.model.checkouts import CheckoutMode, CheckoutReport


@dataclass(frozen=True, slots=True)
class _Options:
    """What was asked for beside the snapshot and its store."""

    dest: str | None
    mode: CheckoutMode
    delete: bool
    dryrun: bool
    timeout: str | None
    wait_for_daemon: str | None
    stall_timeout: str | None
    priority: Priority
    detach: bool
    standalone: str
    cache_dir: str | None
    receipt: str | None
    wait_for_space: bool
    pod: str | None


@verb(
    "pull",
    examples=[
        "snapctl pull --id ID --store s3://datasets/imagenet",
        "snapctl pull --id ID --store s3://datasets/imagenet ./data --delete",
        "snapctl pull --id iris_clf@production --store s3://models/prod --timeout 10m --json",
        "snapctl pull --id ID --store file:///mnt/store --standalone ./data",
    ],
)
@id_option()
@store_option()
@dest_argument(required=False)
@click.option(
    "--mode",
    type=click.Choice(["auto", "reflink", "hardlink", "copy", "symlink"]),
    default="auto",
    show_default=True,
    help="How DEST gets its files.",
)
@click.option("--delete", is_flag=True, help="Remove from DEST what the snapshot does not have.")
@click.option("--dryrun", is_flag=True, help="Pull, but only tell what would change in DEST.")
@timeout_option
@patience_options
@click.option(
    "--priority",
    type=click.Choice(["blocking", "prefetch"]),
    default="blocking",
    show_default=True,
    help="A prefetch goes on when no blocking pull waits.",
)
@click.option("--detach", is_flag=True, help="Start it, print the job's ID and do not wait.")
@standalone_option
@cache_dir_option
@click.option(
    "--receipt",
    metavar="FILE",
    type=click.Path(),
    help="Write down in FILE what the pull proved, for `snapctl attest`.",
)
@click.option(
    "--wait-for-space",
    is_flag=True,
    help="If the cache has no room, wait until it has instead of failing (exit 11).",
)
@click.option(
    "--pod",
    metavar="UID",
    envvar="SNAPSYNC_POD_UID",
    help="Keep the snapshot as long as this pod is on the node.  [env: SNAPSYNC_POD_UID]",
)
@config_option
def command(context: Context, snapshot_id: str, store: str, **options: Any) -> None:
    """Get a verified snapshot onto this node.

    Without DEST it prints the path of the snapshot's read-only tree in the node's cache. With DEST
    it lays the snapshot out there, with your own permissions. Success means that this node has
    exactly the bytes of that ID.
    """
    asked = _Options(**options)
    named, uri = parse_id_or_reference(snapshot_id), str(parse_store_uri(store))
    _check(asked)
    patience = Patience.parse(asked.timeout, asked.wait_for_daemon, asked.stall_timeout)
    here = works_here(context, "never" if asked.detach else asked.standalone, patience)
    led = None
    if isinstance(named, Reference):
        led = look_up(context, named, uri, here=here)
        named = led.snapshot_id
    request = PullRequest(named, uri, asked.priority, asked.wait_for_space)
    holder = keeper(context, here=here, cache_dir=asked.cache_dir)
    if asked.pod:
        holder.add(LeaseRequest(request.snapshot_id, "pod", asked.pod))
    if asked.detach:
        _start(context, request, led)
        return
    view = obtain(context, request, here=here, cache_dir=asked.cache_dir, patience=patience)
    laid_out = _lay_out(context, view, asked, holder)
    if asked.receipt:
        from snapctl.receipts import write_receipt

        dest = laid_out.destination if laid_out and not laid_out.dryrun else None
        write_receipt(context, view, dest, Path(asked.receipt))
    dest = laid_out.destination if laid_out and not laid_out.dryrun else None
    note_use(context, view.snapshot_id, path=str(dest or view.tree), store=view.store)
    _report(context, view, laid_out, led)


def _check(asked: _Options) -> None:
    if asked.pod:
        parse_pod_uid(asked.pod)
    if asked.dest is None and (asked.delete or asked.dryrun or asked.mode != "auto"):
        raise UsageError("--mode, --delete and --dryrun need a DEST")
    if asked.detach and asked.receipt:
        raise UsageError("--receipt needs the pull's end; --detach does not wait for it")
    if asked.detach and (asked.dest is not None or asked.standalone == "always" or asked.timeout):
        raise UsageError("--detach goes with neither DEST, --timeout nor --standalone")


def _start(context: Context, request: PullRequest, led: Resolved | None) -> None:
    view = context.client().start(request)
    if context.output.as_json:
        context.output.print_json(view.to_json() | _named(led))
    else:
        context.output.line(view.job_id)


def _lay_out(
    context: Context, view: JobView, asked: _Options, holder: Keeper
) -> CheckoutReport | None:
    if asked.dest is None:
        return None
    from snapctl.laying_out import lay_out
    from snapd.model.checkouts import CheckoutOptions

    options = CheckoutOptions(mode=asked.mode, delete=asked.delete, dryrun=asked.dryrun)
    snapshot_id, tree, dest = parse_snapshot_id(view.snapshot_id), Path(view.tree), Path(asked.dest)
    return lay_out(context, snapshot_id, tree, dest, options, store=view.store, keeper=holder)


def _report(
    context: Context, view: JobView, laid_out: CheckoutReport | None, led: Resolved | None
) -> None:
    output = context.output
    if output.events:
        if laid_out is not None:
            output.event({"event": "checkout", **laid_out.to_json()})
        return
    if output.as_json:
        output.print_json(_document(view, laid_out) | _named(led))
    elif laid_out is None:
        output.line(view.tree)
    else:
        from snapctl.laying_out import print_report

        print_report(output, laid_out)


def _named(led: Resolved | None) -> dict[str, Any]:
    """Tell by which name the snapshot was asked for, and which version that was."""
    return {} if led is None else {"reference": led.reference, "version": led.version}


def _document(view: JobView, laid_out: CheckoutReport | None) -> dict[str, Any]:
    document = {
        "job_id": view.job_id,
        "id": view.snapshot_id,
        "store": view.store,
        "tree": view.tree,
        "dest": str(laid_out.destination) if laid_out else None,
        "bytes_total": view.bytes_total,
        "bytes_fetched": view.bytes_fetched,
        "bytes_cached": view.bytes_cached,
        "objects_total": view.objects_total,
        "objects_fetched": view.objects_fetched,
        "objects_cached": view.objects_cached,
        "seconds": round(seconds_taken(view), 3),
    }
    return document if laid_out is None else document | {"checkout": laid_out.to_json()}
