"""`snapctl pull`."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snapctl.context import Context
from snapctl.frame import config_option, id_option, standalone_option, store_option, verb
from snapctl.progress import follow, pull_progress, seconds_taken
from snapd.model.errors import DaemonNotRunning, Interrupted, UsageError
from snapd.model.ids import parse_snapshot_id
from snapd.model.jobs import JobView, Priority, PullRequest
from snapd.model.units import parse_duration_seconds
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
    priority: Priority
    detach: bool
    standalone: str
    cache_dir: str | None
    receipt: str | None


@verb(
    "pull",
    examples=[
        "snapctl pull --id ID --store s3://datasets/imagenet",
        "snapctl pull --id ID --store s3://datasets/imagenet ./data --delete",
        "snapctl pull --id ID --store s3://models/prod --timeout 10m --json",
        "snapctl pull --id ID --store file:///mnt/store --standalone ./data",
    ],
)
@id_option()
@store_option()
@click.argument("dest", required=False, type=click.Path())
@click.option(
    "--mode",
    type=click.Choice(["auto", "reflink", "hardlink", "copy", "symlink"]),
    default="auto",
    show_default=True,
    help="How DEST gets its files.",
)
@click.option("--delete", is_flag=True, help="Remove from DEST what the snapshot does not have.")
@click.option("--dryrun", is_flag=True, help="Pull, but only tell what would change in DEST.")
@click.option(
    "--timeout",
    metavar="DURATION",
    envvar="SNAPSYNC_TIMEOUT",
    help="Give up waiting after this time: 90s, 10m, 2h.  [env: SNAPSYNC_TIMEOUT]",
)
@click.option(
    "--priority",
    type=click.Choice(["blocking", "prefetch"]),
    default="blocking",
    show_default=True,
    help="A prefetch goes on when no blocking pull waits.",
)
@click.option("--detach", is_flag=True, help="Start it, print the job's ID and do not wait.")
@standalone_option
@click.option(
    "--cache-dir",
    metavar="DIR",
    envvar="SNAPSYNC_CACHE_DIR",
    help="The cache of a standalone pull.  [env: SNAPSYNC_CACHE_DIR]",
)
@click.option(
    "--receipt",
    metavar="FILE",
    type=click.Path(),
    help="Write down in FILE what the pull proved, for `snapctl attest`.",
)
@config_option
def command(context: Context, snapshot_id: str, store: str, **options: Any) -> None:
    """Get a verified snapshot onto this node.

    Without DEST it prints the path of the snapshot's read-only tree in the node's cache. With DEST
    it lays the snapshot out there, with your own permissions. Success means that this node has
    exactly the bytes of that ID.
    """
    asked = _Options(**options)
    request = PullRequest(
        parse_snapshot_id(snapshot_id), str(parse_store_uri(store)), asked.priority
    )
    _check(asked)
    if asked.detach:
        _start(context, request)
        return
    view = _obtain(context, request, asked)
    laid_out = _lay_out(context, view, asked)
    if asked.receipt:
        from snapctl.receipts import write_receipt

        dest = laid_out.destination if laid_out and not laid_out.dryrun else None
        write_receipt(context, view, dest, Path(asked.receipt))
    _report(context, view, laid_out)


def _check(asked: _Options) -> None:
    if asked.dest is None and (asked.delete or asked.dryrun or asked.mode != "auto"):
        raise UsageError("--mode, --delete and --dryrun need a DEST")
    if asked.detach and asked.receipt:
        raise UsageError("--receipt needs the pull's end; --detach does not wait for it")
    if asked.detach and (asked.dest is not None or asked.standalone == "always" or asked.timeout):
        raise UsageError("--detach goes with neither DEST, --timeout nor --standalone")


def _start(context: Context, request: PullRequest) -> None:
    view = context.client().start(request)
    if context.output.as_json:
        context.output.print_json(view.to_json())
    else:
        context.output.line(view.job_id)


def _obtain(context: Context, request: PullRequest, asked: _Options) -> JobView:
    """Pull through the daemon or here, and return the view of a job that is done."""
    deadline = None
    if asked.timeout:
        deadline = time.monotonic() + parse_duration_seconds(asked.timeout)
    if asked.standalone == "always" or (asked.standalone == "auto" and not _has_daemon(context)):
        from snapctl.engine import pull_here

        return pull_here(context, request, cache_dir=asked.cache_dir, deadline=deadline)
    try:
        with (
            pull_progress(context.output, time.monotonic) as progress,
            closing(context.client().pull(request, deadline=deadline)) as views,
        ):
            return follow(views, progress)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: this command left the pull, which goes on only if others wait for it"
        ) from None


def _has_daemon(context: Context) -> bool:
    try:
        context.client().status()
    except DaemonNotRunning as absent:
        context.output.note(f"{absent.message}; pulling in this process")
        return False
    return True


def _lay_out(context: Context, view: JobView, asked: _Options) -> CheckoutReport | None:
    if asked.dest is None:
        return None
    from snapctl.laying_out import lay_out
    from snapd.model.checkouts import CheckoutOptions

    options = CheckoutOptions(mode=asked.mode, delete=asked.delete, dryrun=asked.dryrun)
    snapshot_id, tree, dest = parse_snapshot_id(view.snapshot_id), Path(view.tree), Path(asked.dest)
    return lay_out(context, snapshot_id, tree, dest, options, store=view.store)


def _report(context: Context, view: JobView, laid_out: CheckoutReport | None) -> None:
    output = context.output
    if output.events:
        return
    if output.as_json:
        output.print_json(_document(view, laid_out))
    elif laid_out is None:
        output.line(view.tree)
    else:
        from snapctl.laying_out import print_report

        print_report(output, laid_out)


def _document(view: JobView, laid_out: CheckoutReport | None) -> dict[str, Any]:
    document = {
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
