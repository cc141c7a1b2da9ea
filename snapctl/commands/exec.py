"""`snapctl exec`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click

from snapctl.awaiting import Patience
from snapctl.context import Context
from snapctl.frame import (
    cache_dir_option,
    config_option,
    id_option,
    patience_options,
    standalone_option,
    store_option,
    timeout_option,
    verb,
)
from snapctl.holding import keeper
from snapctl.obtaining import obtain, works_here
from snapctl.references import resolve
from snapctl.used import note_use
from snapd.model.errors import SnapshotNotFound, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.jobs import PullRequest
from snapd.model.leases import LeaseRequest, fit_reason
from snapd.model.references import parse_id_or_reference
from snapd.model.uris import parse_store_uri


@verb(
    "exec",
    examples=[
        "snapctl exec --id ID -- python train.py",
        "snapctl exec --id ID --store s3://datasets/imagenet -- sh -c 'ls \"$SNAPSYNC_TREE\"'",
    ],
)
@id_option()
@store_option(required=False)
@timeout_option
@patience_options
@click.option(
    "--reason", metavar="TEXT", help="What `snapctl leases` says; the name of CMD if none."
)
@standalone_option
@cache_dir_option
@config_option
@click.argument("words", metavar="-- CMD [ARGS]...", nargs=-1, required=True)
def command(
    context: Context,
    snapshot_id: str,
    store: str | None,
    timeout: str | None,
    wait_for_daemon: str | None,
    stall_timeout: str | None,
    reason: str | None,
    standalone: str,
    cache_dir: str | None,
    words: tuple[str, ...],
) -> None:
    """Run CMD on a snapshot, which stays in the cache as long as CMD runs.

    CMD finds the read-only tree in $SNAPSYNC_TREE and the ID in $SNAPSYNC_ID. With --store the
    snapshot is pulled first; without, it must be in the cache. CMD takes the place of this command:
    it has the same process ID, gets every signal itself, and its exit code is the exit code.
    """
    if context.output.events:
        raise UsageError("--events would mix with what CMD prints")
    named = parse_id_or_reference(snapshot_id)
    uri = str(parse_store_uri(store)) if store else None
    program = _find_program(words[0], context.environment)
    patience = Patience.parse(timeout, wait_for_daemon, stall_timeout)
    here = works_here(context, standalone, patience)
    wanted = resolve(context, named, uri, here=here)
    request = PullRequest(wanted, uri) if uri else None
    holder = keeper(context, here=here, cache_dir=cache_dir)
    # Held first and looked for afterwards, it can't be evicted in between.
    holder.add(LeaseRequest(wanted, "process", reason=fit_reason(reason or words[0])))
    if request is not None:
        view = obtain(context, request, here=here, cache_dir=cache_dir, patience=patience)
        tree = Path(view.tree)
    else:
        tree = _cached(wanted, holder.trees_directory())
    note_use(context, wanted, path=str(tree), store=uri)
    variables = {"SNAPSYNC_TREE": str(tree), "SNAPSYNC_ID": wanted}
    _become(program, words, {**context.environment, **variables})


# What follows the first word belongs to CMD, with or without the two dashes.
command.allow_interspersed_args = False


def _find_program(word: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(word, path=environment.get("PATH", os.defpath))
    if found is None:
        raise UsageError(
            f"no such command, or not executable: {word}", hint="Check its name and your PATH."
        )
    return found


def _cached(snapshot_id: SnapshotId, trees_directory: Path) -> Path:
    tree = trees_directory / snapshot_id
    if not tree.is_dir():
        raise SnapshotNotFound(
            f"the cache has no snapshot {snapshot_id} (looked in {trees_directory})",
            hint="Name its store with --store, and it is pulled first.",
            id=snapshot_id,
        )
    return tree


def _become(program: str, words: tuple[str, ...], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by the command; the lease goes on, for it names this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    _restore_signals()
    try:
        os.execve(program, words, environment)
    except OSError as error:
        raise UsageError(
            f"can't run {program}: {error.strerror}",
            hint="A script needs a first line such as #!/bin/sh.",
        ) from error


def _restore_signals() -> None:
    """Undo what Python and `snapctl` did to signals that a new program inherits."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        # It was ignored when we started, as a shell does for `command &`.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
