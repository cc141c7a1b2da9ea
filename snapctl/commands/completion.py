"""`snapctl completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from snapctl.context import Context
from snapctl.frame import verb


@verb(
    "completion",
    examples=[
        'eval "$(snapctl completion bash)"',
        "snapctl completion fish > ~/.config/fish/completions/snapctl.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(context: Context, shell: str) -> None:
    """Print the script that lets SHELL complete verbs and options."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    root = click.get_current_context().find_root().command
    context.output.line(found(root, {}, "snapctl", "_SNAPCTL_COMPLETE").source().rstrip("\n"))
