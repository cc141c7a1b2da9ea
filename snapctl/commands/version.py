"""`snapctl version`."""

from __future__ import annotations

from snapctl.context import Context
from snapctl.frame import verb
from snapd import __version__


@verb("version", examples=["snapctl version", "snapctl version --json"])
def command(context: Context) -> None:
    """Print the version of this command line."""
    if context.output.as_json:
        context.output.print_json({"version": __version__})
    else:
        context.output.line(f"snapctl {__version__}")
