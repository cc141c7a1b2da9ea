"""The command group: a static table of verbs, each imported only when it is invoked."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import click

from snapctl.frame import HelpEnding
from snapd import __version__


class Verb(NamedTuple):
    """Where a command lives and the line that the overview shows for it."""

    module: str
    summary: str


VERBS: dict[str, Verb] = {
    "pull": Verb("snapctl.commands.pull", "Get a verified snapshot onto this node."),
    "plan": Verb("snapctl.commands.plan", "Tell what a pull would fetch and evict."),
    "push": Verb("snapctl.commands.push", "Put a directory into a store and print its ID."),
    "id": Verb("snapctl.commands.id", "Print the snapshot ID of a directory or a manifest."),
    "manifest": Verb("snapctl.commands.manifest", "Print the manifest of a directory."),
    "diff": Verb("snapctl.commands.diff", "Show what differs between two snapshots."),
    "verify": Verb("snapctl.commands.verify", "Hash a store's snapshot or a directory again."),
    "checkout": Verb("snapctl.commands.checkout", "Lay a cached snapshot out at a path."),
    "exec": Verb("snapctl.commands.exec", "Run a command that holds a snapshot."),
    "hold": Verb("snapctl.commands.hold", "Pull a snapshot and keep it until ended."),
    "receipt": Verb("snapctl.commands.receipt", "Print what the pull of a snapshot proved."),
    "attest": Verb("snapctl.commands.attest", "Check a tree or a checkout against its receipt."),
    "dataset": Verb("snapctl.commands.dataset", "Name versions of datasets."),
    "model": Verb("snapctl.commands.model", "Name versions of models; promote, roll back."),
    "lineage": Verb("snapctl.commands.lineage", "Show what something was made from and led to."),
    "whence": Verb("snapctl.commands.whence", "Tell where bytes are from, from bytes alone."),
    "audit": Verb("snapctl.commands.audit", "Tell what was in a model's stage at a time."),
    "revisions": Verb("snapctl.commands.revisions", "List what came to a location, newest first."),
    "ancestors": Verb("snapctl.commands.ancestors", "List what was there before a snapshot came."),
    "locations": Verb("snapctl.commands.locations", "List where snapshots were pushed to."),
    "follow": Verb("snapctl.commands.follow", "Keep what a reference leads to live at a path."),
    "run": Verb("snapctl.commands.run", "Record runs: code, data, environment, outputs."),
    "status": Verb("snapctl.commands.status", "Tell how the daemon and its cache are."),
    "top": Verb("snapctl.commands.top", "Watch what the node holds and does."),
    "doctor": Verb("snapctl.commands.doctor", "Look for what is wrong and say what to do."),
    "jobs": Verb("snapctl.commands.jobs", "List the pulls of the daemon."),
    "watch": Verb("snapctl.commands.watch", "Follow a pull until it ends."),
    "cancel": Verb("snapctl.commands.cancel", "Stop a pull."),
    "leases": Verb("snapctl.commands.leases", "Show who holds which snapshots, and why."),
    "cache": Verb("snapctl.commands.cache", "Look into the node's cache."),
    "version": Verb("snapctl.commands.version", "Print the version."),
    "completion": Verb("snapctl.commands.completion", "Print a shell's completion script."),
}


class LazyGroup(click.Group, HelpEnding):
    """A group that knows its commands by a table and loads only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the verbs in the order in which people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and take its `command`."""
        found = VERBS.get(cmd_name)
        if found is None:
            return None
        command = import_module(found.module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{found.module}.command is not a click.Command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that was typed; of one that is not there, name the nearest."""
        typed = args[0]
        if typed not in VERBS and not typed.startswith("-"):
            from difflib import get_close_matches

            for near in get_close_matches(typed, VERBS, n=1):
                ctx.fail(f"No such command {typed!r}. Did you mean {near!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table; no command module is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in VERBS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete verbs from the table, and options as usual."""
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=entry.summary)
            for name, entry in VERBS.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    "snapctl",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=[
        "snapctl push ./dataset --store s3://datasets/imagenet",
        "snapctl pull --id ID --store s3://datasets/imagenet",
        "snapctl pull --id ID --store s3://datasets/imagenet ./data",
        "snapctl status --json",
    ],
)
@click.version_option(__version__, message="snapctl %(version)s")
def app() -> None:
    """Verified snapshots of training data and models, one copy per node."""
