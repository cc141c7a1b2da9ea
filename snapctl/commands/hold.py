"""`snapctl hold`."""

from __future__ import annotations

import signal
import time
from contextlib import closing

import click

from snapctl.awaiting import Patience
from snapctl.context import Context
from snapctl.frame import id_option, patience_options, store_option, timeout_option, verb
from snapctl.obtaining import obtain, works_here
from snapctl.references import resolve
from snapctl.used import note_use
from snapd.model.errors import SnapsyncError, UsageError
from snapd.model.jobs import JobView, PullRequest
from snapd.model.leases import LeaseRequest, fit_reason
from snapd.model.references import parse_id_or_reference
from snapd.model.units import format_duration, parse_duration_seconds
from snapd.model.uris import parse_store_uri

_RETRY_SECONDS = 15.0


@verb(
    "hold",
    examples=[
        "snapctl hold --id ID --store s3://datasets/imagenet",
        "snapctl hold --id ID --store s3://datasets/imagenet --every 5m --wait-for-daemon 10m",
    ],
)
@id_option()
@store_option()
@click.option(
    "--every",
    metavar="DURATION",
    default="10m",
    show_default=True,
    help="How often the hold is renewed if the daemon can't see this process;"
    " less than `[cache] lease_seconds`.",
)
@click.option("--reason", metavar="TEXT", default="hold", help="What `snapctl leases` says.")
@timeout_option
@patience_options
def command(
    context: Context,
    snapshot_id: str,
    store: str,
    every: str,
    reason: str,
    timeout: str | None,
    wait_for_daemon: str | None,
    stall_timeout: str | None,
) -> None:
    """Pull a snapshot and keep it in the cache until this command is ended.

    For a sidecar: it prints the tree's path and then stays. A daemon that can see this process
    holds the snapshot as long as it lives. For one in another PID namespace the hold is renewed now
    and then, and outlives this command by `[cache] lease_seconds` at most. SIGTERM ends it with 0.
    """
    interval_seconds = parse_duration_seconds(every)
    if interval_seconds < 1:
        raise UsageError("--every is at least 1s")
    named, uri = parse_id_or_reference(snapshot_id), str(parse_store_uri(store))
    patience = Patience.parse(timeout, wait_for_daemon, stall_timeout)
    works_here(context, "never", patience)
    wanted = resolve(context, named, uri, here=False)
    request = PullRequest(wanted, uri)
    seen = _held_by_process(context, LeaseRequest(wanted, "process", reason=fit_reason(reason)))
    view = obtain(context, request, here=False, cache_dir=None, patience=patience)
    try:
        note_use(context, view.snapshot_id, path=view.tree, store=view.store)
        _tell(context, view)
        while True:
            if seen:
                signal.pause()
            else:
                _renew(context, request, interval_seconds)
    except KeyboardInterrupt:
        return


def _held_by_process(context: Context, request: LeaseRequest) -> bool:
    """Hold it for this process; tell whether the daemon can see that."""
    try:
        context.client().add_lease(request)
    except UsageError as unseen:
        context.output.note(f"{unseen.message}; the hold is renewed now and then")
        return False
    return True


def _renew(context: Context, request: PullRequest, interval_seconds: float) -> None:
    """Pull again after a while, which takes nothing if all is there; a failure is tried again."""
    time.sleep(interval_seconds)
    pause_seconds = min(_RETRY_SECONDS, interval_seconds)
    while True:
        try:
            with closing(context.client().pull(request)) as views:
                last = list(views)[-1]
            if last.error is None:
                return
            why = str(last.error.get("message", last.state))
        except SnapsyncError as error:
            why = error.message
        context.output.note(f"not renewed: {why}; next try in {format_duration(pause_seconds)}")
        time.sleep(pause_seconds)


def _tell(context: Context, view: JobView) -> None:
    output = context.output
    if output.as_json:
        output.event({"event": "held", "id": view.snapshot_id, "tree": view.tree})
    else:
        output.line(view.tree)
        output.stdout.flush()
