"""`snapctl jobs`."""

from __future__ import annotations

import click

from snapctl.context import Context
from snapctl.frame import verb
from snapd.model.jobs import JobView
from snapd.model.units import format_duration, format_size


@verb("jobs", examples=["snapctl jobs", "snapctl jobs --all --json"])
@click.option("--all", "with_ended", is_flag=True, help="Also those that ended.")
def command(context: Context, with_ended: bool) -> None:
    """List the pulls that run or wait, and with --all the recent ones that ended."""
    jobs = [job for job in context.client().jobs() if with_ended or not job.ended]
    if context.output.as_json:
        context.output.print_json({"jobs": [job.to_json() for job in jobs]})
        return
    columns = ("JOB", "STATE", "SNAPSHOT", "BYTES", "OBJECTS", "RATE", "ETA", "WAITERS", "STORE")
    context.output.table(columns, [_row(job) for job in jobs])


def _row(job: JobView) -> tuple[str, ...]:
    present_bytes = job.bytes_cached + job.bytes_fetched
    return (
        job.job_id,
        job.state,
        job.snapshot_id[:12],
        f"{format_size(present_bytes)}/{format_size(job.bytes_total)}",
        f"{job.objects_cached + job.objects_fetched}/{job.objects_total}",
        f"{format_size(job.bytes_per_second)}/s" if job.bytes_per_second and not job.ended else "-",
        "-" if job.eta_seconds is None else format_duration(job.eta_seconds),
        str(job.waiters),
        job.store,
    )
