"""`snapctl run reproduce`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from snapctl.context import Context
from snapctl.frame import cache_dir_option, config_option, store_option, verb
from snapctl.registering import read_values, with_registry
from snapctl.repositories import lay_out_commit, look_for_commit
from snapctl.reproducing import compare_outputs, lay_out_data, run_again
from snapd.model.errors import ActionFailed, PartlyDone, RunDiffers, UsageError
from snapd.model.names import parse_name
from snapd.model.reproduction import CODE, OutputCheck, Plan, is_masked, plan_reproduction
from snapd.model.run_checks import CodeHere
from snapd.model.runs import Run
from snapd.registry.runs import Runs


@verb(
    "reproduce",
    examples=[
        "snapctl run reproduce iris-7 --store s3://models/prod",
        "snapctl run reproduce iris-7 --into /scratch/again --repo ~/src/iris --run",
        "snapctl run reproduce iris-7 --output model=out --run -- python train.py --data data",
    ],
)
@click.argument("run_id", metavar="RUN")
@store_option()
@click.option(
    "--into",
    metavar="DIR",
    type=click.Path(),
    help="A directory that does not exist yet or is empty.  [default: reproduced-RUN]",
)
@click.option(
    "--repo",
    metavar="PATH",
    type=click.Path(),
    help="A git repository that has the code.  [default: that of the working directory]",
)
@click.option("--run", "is_run", is_flag=True, help="Run the command, too, and compare outputs.")
@click.option(
    "--output",
    "outputs",
    metavar="NAME=PATH",
    multiple=True,
    help="Where the command puts the output that the record calls NAME. May be repeated.",
)
@click.option("--standalone", "is_alone", is_flag=True, help="Pull in this process in any case.")
@cache_dir_option
@config_option
@click.argument("words", metavar="[-- CMD [ARGS]...]", nargs=-1)
def reproduce(
    context: Context,
    run_id: str,
    store: str,
    into: str | None,
    repo: str | None,
    is_run: bool,
    outputs: tuple[str, ...],
    is_alone: bool,
    cache_dir: str | None,
    words: tuple[str, ...],
) -> None:
    """Lay a run's data out in a fresh directory, with the code of its commit, to run it again.

    The code is a clone of its own, so nothing changes in the repository. Printed is the command,
    with paths that lead into the directory; --run runs it, and tells of each output whether it is
    the recorded one: same, different, absent or not compared. CMD stands in for what is recorded.

    Exit 1 if an output is different or absent, or the command fails; 3 if one was not compared.
    """
    parse_name(run_id)
    named = read_values(outputs, "--output")
    run = with_registry(context, store, lambda registry: Runs(registry).run(run_id))
    if is_run and not (words or run.command):
        raise UsageError(
            f"the run {run_id} does not say which command it was", hint="Name one after --."
        )
    if is_run and is_masked(words or run.command):
        raise UsageError(
            "the record masks a word of the command that looked like a secret",
            hint="Give the whole command after --.",
        )
    here = CodeHere("")
    if run.code is not None:
        here = look_for_commit(repo, run.code.commit, context.environment)
    root = _fresh(into or f"reproduced-{run_id}")
    code_notes = _lay_out_code(context, run, here, root, is_needed=repo is not None)
    plan = plan_reproduction(
        run, str(root), command=words, named_outputs=named, is_taken=_taken(root)
    )
    if not _is_below(plan.directory, root):
        raise UsageError(
            f"a link in the code leads from {plan.directory} out of {root}",
            hint="Look at the commit: nothing is done outside of the fresh directory.",
        )
    Path(plan.directory).mkdir(parents=True, exist_ok=True)
    again = _Again(context, root, run, store, plan, (*code_notes, *plan.notes))
    if is_run:
        again.refuse_unsafe()
    lay_out_data(context, plan, store, is_alone=is_alone, cache_dir=cache_dir)
    again.say()
    if is_run:
        again.run()
    else:
        again.print_command()


def _fresh(into: str) -> Path:
    """Make the directory; raises `UsageError` for one that has something in it."""
    root = Path(os.path.realpath(into))
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise UsageError(f"{into} is not empty", hint="Name a fresh directory with --into.")
    except OSError as error:
        raise ActionFailed(f"can't make {into}: {error.strerror}") from error
    return root


def _lay_out_code(
    context: Context, run: Run, here: CodeHere, root: Path, *, is_needed: bool
) -> list[str]:
    """Lay it out if it is at hand; give what is to be told. A named repository must have it."""
    if run.code is None:
        return []
    commit = run.code.commit
    if not here.has_commit and not is_needed:
        where = here.where if here.has_commit is None else f"{here.where} does not have it"
        origin = f"; it is in {run.code.repository}" if run.code.repository else ""
        return [f"the code is not laid out, commit {commit}: {where}{origin}. See --repo."]
    return lay_out_commit(here.where, commit, root / CODE, context.environment)


def _taken(root: Path) -> Callable[[str], bool]:
    """Tell what is in the code already, or is reached through a link that leads out of it."""

    def is_taken(path: str) -> bool:
        return os.path.lexists(path) or not _is_below(os.path.dirname(path), root)

    return is_taken


def _is_below(path: str, root: Path) -> bool:
    """Tell whether a path is still below a directory when all links have been followed."""
    return Path(os.path.realpath(path)).is_relative_to(root)


@dataclass(frozen=True, slots=True)
class _Again:
    """A run that is laid out again."""

    context: Context
    root: Path
    recorded: Run
    store: str
    plan: Plan
    notes: tuple[str, ...]

    def refuse_unsafe(self) -> None:
        """Raise `UsageError` for a command that would write over something outside."""
        for path in self.plan.endangered:
            if os.path.lexists(path):
                raise UsageError(
                    f"the command may write to {path}, as it did then, and that exists",
                    hint="Give a command with another path after --, or move it away.",
                )
        for placed in self.plan.outputs:
            if placed.path is not None and not _is_below(placed.path, self.root):
                raise UsageError(
                    f"the command may write to {os.path.realpath(placed.path)}, where a link in the"
                    f" code leads from {placed.path}",
                    hint="Give a command with another path after --.",
                )

    def say(self) -> None:
        """Say on stderr where things are, and what is not as it was."""
        output = self.context.output
        for placed in self.plan.data:
            output.note(f"data {placed.use.reference or placed.use.snapshot_id} is {placed.path}")
        for note in self.notes:
            output.note(f"note: {note}")

    def print_command(self) -> None:
        """Print what is to be run, for a shell."""
        plan = self.plan
        if self.context.output.as_json:
            self.context.output.print_json(self._document())
        elif plan.command:
            line = f"cd {shlex.quote(plan.directory)} && {shlex.join(plan.command)}"
            self.context.output.line(line)
        else:
            self.context.output.line(plan.directory)

    def run(self) -> None:
        """Run it, compare, print; raises what the exit code stands for."""
        status, reported = run_again(self.context, self.plan, self.recorded.run_id)
        checks = compare_outputs(self.context, self.plan, self.store, reported)
        if self.context.output.as_json:
            told = [each.to_json() for each in checks]
            self.context.output.print_json(
                {**self._document(), "exit_status": status, "outputs": told}
            )
        else:
            for each in checks:
                self.context.output.line(each.line())
        self._judge(status, checks)

    def _judge(self, status: int, checks: list[OutputCheck]) -> None:
        run_id = self.recorded.run_id
        recorded = self.recorded.exit_status or 0
        if status != recorded:
            then = f", and then it was {recorded}" if recorded else ""
            raise RunDiffers(
                f"the command ended with {status}{then}",
                hint="What it printed tells why; the directory is left as it is.",
                run_id=run_id,
                exit_status=status,
            )
        wrong = [each for each in checks if each.status in ("different", "absent")]
        open_checks = [each for each in checks if each.status == "not compared"]
        total = len(checks)
        if wrong:
            raise RunDiffers(
                f"{len(wrong)} of {total} outputs of run {run_id} are not as recorded",
                hint="Look at seeds, at what is in no commit, and at `snapctl run verify`.",
                run_id=run_id,
                outputs=[each.to_json() for each in wrong],
            )
        if open_checks or not checks:
            raise PartlyDone(
                f"{len(open_checks)} of {total} outputs of run {run_id} were not compared"
                if checks
                else f"run {run_id} recorded no outputs to compare with",
                hint="Say where they are with --output NAME=PATH." if checks else "",
                run_id=run_id,
            )
        self.context.output.note(f"run {run_id}: same outputs, {total} of {total}")

    def _document(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "run_id": self.recorded.run_id,
            "directory": plan.directory,
            "command": list(plan.command),
            "data": [
                {"snapshot_id": each.use.snapshot_id, "path": each.path} for each in plan.data
            ],
            "outputs": [
                {"snapshot_id": each.use.snapshot_id, "name": each.use.path, "path": each.path}
                for each in plan.outputs
            ],
            "notes": list(self.notes),
        }
