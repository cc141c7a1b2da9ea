"""`snapctl top`."""

from __future__ import annotations

import time
from contextlib import suppress

import click

from snapctl.context import Context
from snapctl.frame import verb
from snapd.model.errors import UsageError
from snapd.model.units import parse_duration_seconds

_SHORTEST_SECONDS = 0.2


@verb("top", examples=["snapctl top", "snapctl top --once", "snapctl top --json"])
@click.option("--interval", metavar="DURATION", default="1s", show_default=True, help="How often.")
@click.option("--once", is_flag=True, help="Show it once and end, as without a terminal.")
def command(context: Context, interval: str, once: bool) -> None:
    """Watch what the node holds and does: pulls, rates, snapshots, failures, disk.

    Ends with q or Ctrl-C. With --json it is one document; with --events one line each time.
    """
    seconds = parse_duration_seconds(interval)
    if seconds < _SHORTEST_SECONDS:
        raise UsageError(f"the interval is too short: {interval}", hint="Use 200ms or more.")
    client, output = context.client(), context.output
    if output.events and not once:
        with suppress(KeyboardInterrupt):
            while True:
                output.event(client.overview().to_json())
                time.sleep(seconds)
        return
    if output.as_json:
        output.print_json(client.overview().to_json())
        return
    from rich.console import Console

    from snapctl.top import draw_for_ever, picture

    console = Console(
        file=output.stdout,
        no_color=not output.has_color(output.stdout),
        highlight=False,
        _environ=output.environment,
    )
    if once or not output.stdout.isatty() or output.environment.get("TERM") == "dumb":
        console.print(picture(client.overview(), width=console.width, height=200))
        return
    with suppress(KeyboardInterrupt):
        draw_for_ever(client.overview, console, seconds)
