"""`snapctl run`: records of runs; `snapctl run -- CMD` runs a command and records it."""

from __future__ import annotations

import click

from snapctl.commands.run_exec import run_command
from snapctl.commands.run_recording import record
from snapctl.commands.run_reproducing import reproduce
from snapctl.commands.run_showing import ls, show
from snapctl.commands.run_verifying import verify
from snapctl.registering import VerbGroup

_SWITCHES = {"--json", "--events", "-q", "--quiet", "--verbose"}


class RunGroup(VerbGroup):
    """`snapctl run VERB ...`, and `snapctl run [OPTIONS] -- CMD`, which is `run exec`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the verb in where a command follows two dashes without one."""
        first = next((each for each in args if each not in _SWITCHES), "")
        if "--" in args and first not in self.commands:
            args = ["exec", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; of another word, say what was probably meant."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. To run one: snapctl run -- {args[0]} ...")
        return super().resolve_command(ctx, args)


@click.group(
    "run",
    cls=RunGroup,
    subcommand_metavar="VERB [ARGS]... | [OPTIONS] -- CMD [ARGS]...",
    examples=[
        "snapctl run --data imagenet@v1.2.0 --output model -- python train.py",
        "snapctl run record run.yaml --store s3://models/prod",
        "snapctl run ls --since 7d",
        "snapctl run verify iris-7",
        "snapctl run reproduce iris-7 --run",
    ],
)
def command() -> None:
    """Record which code made which snapshots of which data, and look it up again.

    `snapctl run [OPTIONS] -- CMD` runs a command and records it; `snapctl run exec --help` tells
    the options.
    """


command.add_command(run_command)
command.add_command(record)
command.add_command(show)
command.add_command(ls)
command.add_command(verify)
command.add_command(reproduce)
