"""Do a recorded run again: lay out its data, run its command, compare what it makes."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path

from snapctl.context import Context
from snapctl.holding import keeper
from snapctl.laying_out import lay_out
from snapctl.obtaining import NO_PATIENCE, obtain, works_here
from snapctl.outputs import as_directory
from snapctl.run_reports import VARIABLE as REPORT
from snapctl.run_reports import read_report
from snapctl.stores import with_store
from snapctl.supervising import supervise
from snapctl.walking import walk_meter
from snapd.actions.read import read_manifest
from snapd.disk.walk import walk
from snapd.model.checkouts import CheckoutOptions
from snapd.model.diff import Change, diff
from snapd.model.errors import SnapsyncError, UsageError
from snapd.model.jobs import PullRequest
from snapd.model.manifest import Manifest
from snapd.model.names import in_one_line
from snapd.model.reproduction import OutputCheck, Placed, Plan
from snapd.model.run_parts import Use
from snapd.model.uris import parse_store_uri


def lay_out_data(
    context: Context, plan: Plan, store: str, *, is_alone: bool, cache_dir: str | None
) -> None:
    """Pull each snapshot and lay out a private copy of it; by the daemon, or here if none runs."""
    if not plan.data:
        return
    here = works_here(context, "always" if is_alone else "auto")
    holder = keeper(context, here=here, cache_dir=cache_dir)
    for use, path in plan.data:
        assert path is not None
        uri = str(parse_store_uri(use.store or store))
        request = PullRequest(use.snapshot_id, uri)
        view = obtain(context, request, here=here, cache_dir=cache_dir, patience=NO_PATIENCE)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        options = CheckoutOptions()
        lay_out(
            context, use.snapshot_id, Path(view.tree), Path(path), options, store=uri, keeper=holder
        )


def run_again(context: Context, plan: Plan, run_id: str) -> tuple[int, Mapping[str, str]]:
    """Run the command; give its exit status and the paths of outputs that it told of itself.

    With `--json` what it prints goes to stderr. Raises `UsageError` if there is no such program.
    """
    with tempfile.TemporaryDirectory(prefix="snapsync-run-") as made, chdir(plan.directory):
        program = shutil.which(plan.command[0], path=context.environment.get("PATH", os.defpath))
        if program is None:
            raise UsageError(
                f"no such command here, or not executable: {plan.command[0]}",
                hint="Give a command that is here after --.",
            )
        report = Path(made) / "run"
        report.touch(0o600)
        variables = {"SNAPSYNC_REPRODUCES": run_id, REPORT: str(report)}
        if len(plan.data) == 1:
            [(use, path)] = plan.data
            variables |= {"SNAPSYNC_TREE": path or "", "SNAPSYNC_ID": use.snapshot_id}
        for _, path in plan.outputs:
            if path is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
        with _stdout_for_us(context):
            status = supervise(program, plan.command, {**context.environment, **variables})
        try:
            return status, read_report(report).paths
        except SnapsyncError as error:
            context.output.note(f"note: what the command told of itself is unfit: {error.message}")
            return status, {}


@contextmanager
def _stdout_for_us(context: Context) -> Iterator[None]:
    """Let the command print to stderr during the block if stdout is for one JSON document."""
    sys.stdout.flush()
    if not context.output.as_json:
        yield
        return
    ours = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)


def compare_outputs(
    context: Context, plan: Plan, store: str, reported: Mapping[str, str]
) -> list[OutputCheck]:
    """Hash what was made and compare it with what was recorded, output by output."""
    return [_compare(context, plan, store, placed, reported) for placed in plan.outputs]


def _compare(
    context: Context, plan: Plan, store: str, placed: Placed, reported: Mapping[str, str]
) -> OutputCheck:
    use, path = placed
    if use.path is not None and use.path in reported:
        path = str(Path(plan.directory) / reported[use.path])
    if path is None:
        return OutputCheck(use, None, "not compared", "the record does not say where it was made")
    if not os.path.exists(path):
        return OutputCheck(use, path, "absent", f"{path} is not there")
    hashing = walk_meter(context, f"hash {use.path}")
    with as_directory(Path(path)) as source, hashing as on_progress:
        made = walk(source, on_progress=on_progress).manifest
    if made.id == use.snapshot_id:
        return OutputCheck(use, path, "same")
    return OutputCheck(use, path, "different", _why(context, use, store, made))


def _why(context: Context, use: Use, store: str, made: Manifest) -> str:
    """Say in what the manifests differ, if the recorded one can be read."""
    try:
        read = partial(read_manifest, snapshot_id=use.snapshot_id)
        recorded = with_store(context, use.store or store, read)
    except SnapsyncError as error:
        return f"{made.id}; the recorded one can't be read: {error.message}"
    changes = list(diff(recorded, made))
    if all(map(_is_mode_only, changes)):
        return f"{made.id}; the bytes are the same, modes are not (see umask)"
    first = changes[0]
    path = in_one_line(first.path)
    return f"{made.id}; {len(changes)} differences, the first is {first.status} {path}"


def _is_mode_only(change: Change) -> bool:
    old, new = change.old, change.new
    return old is not None and new is not None and old.checksum == new.checksum
