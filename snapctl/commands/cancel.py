"""`snapctl cancel`."""

from __future__ import annotations

import click

from snapctl.context import Context
from snapctl.frame import verb


@verb("cancel", examples=["snapctl jobs", "snapctl cancel JOB"])
@click.argument("job")
def command(context: Context, job: str) -> None:
    """Stop a pull for everybody who waits for it; what is verified stays in the cache."""
    view = context.client().cancel(job)
    if context.output.as_json:
        context.output.print_json(view.to_json())
    else:
        context.output.line(f"{view.job_id} {view.state}")
