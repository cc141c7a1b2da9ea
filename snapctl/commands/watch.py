"""`snapctl watch`."""

from __future__ import annotations

import time

import click

from snapctl.context import Context
from snapctl.frame import id_option, verb
from snapctl.progress import pull_progress
from snapctl.reattaching import follow_attached
from snapd.model.errors import JobNotFound, UsageError
from snapd.model.ids import parse_snapshot_id
from snapd.model.jobs import JobView


@verb("watch", examples=["snapctl watch JOB", "snapctl watch --id ID --events"])
@click.argument("job", required=False)
@id_option(required=False)
def command(context: Context, job: str | None, snapshot_id: str | None) -> None:
    """Follow a pull until it ends, and exit as it ended; stopping to watch stops nothing.

    With --id it is the pull of that snapshot that runs, or else the one that ended last.
    """
    if job is None and snapshot_id is None:
        raise UsageError("name a JOB, or a snapshot with --id", hint="`snapctl jobs` lists both.")
    client = context.client()
    chosen = job or _latest_of(client.jobs(), str(snapshot_id)).job_id
    with pull_progress(context.output, time.monotonic) as progress:
        view = follow_attached(lambda: client.watch(chosen), progress)
    if context.output.as_json and not context.output.events:
        context.output.print_json(view.to_json())


def _latest_of(jobs: list[JobView], snapshot_id: str) -> JobView:
    wanted = parse_snapshot_id(snapshot_id)
    mine = [job for job in jobs if job.snapshot_id == wanted]
    if not mine:
        raise JobNotFound(f"no pull of {wanted} runs or ended recently")
    return max(mine, key=lambda job: (not job.ended, job.created_at))
