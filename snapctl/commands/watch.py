"""`snapctl watch`."""

from __future__ import annotations

import time

import click

from snapctl.context import Context
from snapctl.frame import id_option, reference_store_option, verb
from snapctl.progress import pull_progress
from snapctl.reattaching import follow_attached
from snapctl.references import resolve
from snapd.model.errors import JobNotFound, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.jobs import JobView
from snapd.model.references import parse_id_or_reference


@verb("watch", examples=["snapctl watch JOB", "snapctl watch --id ID --events"])
@click.argument("job", required=False)
@id_option(required=False)
@reference_store_option
def command(context: Context, job: str | None, snapshot_id: str | None, store: str | None) -> None:
    """Follow a pull until it ends, and exit as it ended; stopping to watch stops nothing.

    With --id it is the pull of that snapshot that runs, or else the one that ended last.
    """
    if job is None and snapshot_id is None:
        raise UsageError("name a JOB, or a snapshot with --id", hint="`snapctl jobs` lists both.")
    client = context.client()
    if job is None:
        wanted = resolve(context, parse_id_or_reference(str(snapshot_id)), store, here=False)
        job = _latest_of(client.jobs(), wanted).job_id
    chosen = job
    with pull_progress(context.output, time.monotonic) as progress:
        view = follow_attached(lambda: client.watch(chosen), progress)
    if context.output.as_json and not context.output.events:
        context.output.print_json(view.to_json())


def _latest_of(jobs: list[JobView], wanted: SnapshotId) -> JobView:
    mine = [job for job in jobs if job.snapshot_id == wanted]
    if not mine:
        raise JobNotFound(f"no pull of {wanted} runs or ended recently")
    return max(mine, key=lambda job: (not job.ended, job.created_at))
