"""`snapctl run`: records of runs; `snapctl run -- CMD` runs a command and records it."""

from __future__ import annotations

import click

from snapctl.commands.run_recording import record
from snapctl.commands.run_showing import ls, show
from snapctl.registering import VerbGroup


@click.group(
    "run",
    cls=VerbGroup,
    examples=[
        "snapctl run record run.yaml --store s3://models/prod",
        "snapctl run ls --since 7d",
    ],
)
def command() -> None:
    """Record which code made which snapshots of which data, and look it up again."""


command.add_command(record)
command.add_command(show)
command.add_command(ls)
