"""`snapctl run -- CMD`: run a command, find out what it is made of, and record it."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.in_use import LeaseWatch, Seen, given_tree, merged, read_notes
from snapctl.recorded_runs import (
    chosen_run_id,
    data_options,
    in_data_store,
    keep_for_later,
    look_first,
    read_data,
    record_here,
    used_data,
)
from snapctl.registering import author_of, author_options, read_values
from snapctl.run_reports import VARIABLE as REPORT
from snapctl.run_reports import Report, read_report
from snapctl.supervising import supervise
from snapctl.surroundings import surroundings
from snapctl.used import VARIABLE as NOTES
from snapctl.working_tree import WorkingTree, working_tree
from snapd.model.errors import (
    ActionFailed,
    InternalError,
    Interrupted,
    SnapsyncError,
    UsageError,
)
from snapd.model.receipts import format_moment
from snapd.model.run_parts import Environment
from snapd.model.runs import ARGUMENT_MAX_CHARACTERS, ARGUMENTS_MAX, Run
from snapd.model.secrecy import mask_arguments, secret_values
from snapd.model.values import read_seed, read_value
from snapd.model.written_runs import Named, WrittenRun


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of this command."""

    run_id: str | None
    data: tuple[str, ...]
    data_store: str | None
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]
    seed: str | None
    image: str | None
    lock: str | None
    save: str | None
    strict: bool
    by: str | None
    note: str


@verb(
    "exec",
    examples=[
        "snapctl run -- python train.py",
        "snapctl run --data imagenet@v1.2.0 --output model -- python train.py --lr 0.1",
        "snapctl exec --id imagenet@v1.2.0 -- snapctl run --output out -- python train.py",
    ],
)
@store_option()
@click.option("--run-id", metavar="RUN", help="Its ID; one that sorts by time if not given.")
@data_options
@click.option(
    "--output",
    "outputs",
    metavar="[NAME=]PATH",
    multiple=True,
    help="Push this directory or file when CMD has succeeded, and record its ID. May be repeated.",
)
@click.option("--param", "parameters", metavar="NAME=VALUE", multiple=True, help="Likewise.")
@click.option(
    "--seed",
    metavar="SEED",
    envvar="SNAPSYNC_SEED",
    help="What random numbers begin with.  [env: SNAPSYNC_SEED]",
)
@click.option(
    "--image",
    metavar="IMAGE",
    envvar="SNAPSYNC_IMAGE",
    help="The container image, best by its digest.  [env: SNAPSYNC_IMAGE]",
)
@click.option(
    "--lock",
    metavar="FILE",
    type=click.Path(),
    help="The file that pins the packages; found by itself if it has a usual name.",
)
@click.option(
    "--save", metavar="FILE", type=click.Path(), help="Write the record to FILE, too, as JSON."
)
@click.option(
    "--strict", is_flag=True, help="Fail if CMD has succeeded and can't be recorded; else a note."
)
@author_options
@config_option
@click.argument("words", metavar="-- CMD [ARGS]...", nargs=-1, required=True)
def run_command(context: Context, store: str, words: tuple[str, ...], **options: Any) -> int:
    """Run CMD and record it: commit, data in use, environment, outputs, times, exit status.

    CMD finds the run's ID in $SNAPSYNC_RUN_ID. Into the file $SNAPSYNC_RUN_FILE it may write
    params, metrics, outputs, seed and note, as YAML or JSON. Data in use is what `snapctl` pulls,
    checks out or holds below CMD or holds around it, and what --data names. Its exit code is the
    exit code. A command that fails is recorded, too, without the outputs of --output.

    Variables are not recorded, and arguments that look like secrets are masked.
    """
    if context.output.events:
        raise UsageError("--events would mix with what CMD prints")
    return _Wrapped.prepare(context, store, words, _Options(**options)).run()


# What follows the first word belongs to CMD, with or without the two dashes.
run_command.allow_interspersed_args = False


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """A command that is about to run, with all that is known before."""

    context: Context
    store: str
    program: str
    words: tuple[str, ...]
    options: _Options
    run_id: str
    data: tuple[Named, ...]
    paths: Mapping[str, str]
    known: Mapping[str, Any]

    @classmethod
    def prepare(
        cls, context: Context, store: str, words: tuple[str, ...], options: _Options
    ) -> _Wrapped:
        """Find out what can be before; raises what would keep the run from being recorded."""
        program = shutil.which(words[0], path=context.environment.get("PATH", os.defpath))
        if program is None:
            raise UsageError(
                f"no such command, or not executable: {words[0]}",
                hint="Check its name and your PATH.",
            )
        author_of(options.by, options.note)
        given = read_values(options.parameters, "--param")
        run_id = chosen_run_id(options.run_id)
        tree = _tree(context)
        known: dict[str, Any] = {
            "parameters": {name: read_value(text) for name, text in given.items()},
            "environment": surroundings(
                program,
                Path.cwd(),
                None if tree is None else Path(tree.top),
                context.environment,
                image=options.image,
                lock=options.lock,
            ),
            "host": os.uname().nodename,
            "command": _shown(words, context.environment),
        }
        known |= {} if tree is None else {"code": tree.code}
        known |= {} if options.seed is None else {"seed": read_seed(options.seed)}
        data = in_data_store(read_data(options.data), options.data_store)
        WrittenRun(run_id, known=known).run(run_id, author_of(options.by, options.note))
        return cls(
            context,
            store,
            program,
            words,
            options,
            run_id,
            look_first(context, store, run_id, data, is_named=bool(options.run_id)),
            _output_paths(options.outputs),
            known,
        )

    def run(self) -> int:
        """Run it, record it, and give the exit code."""
        with tempfile.TemporaryDirectory(
            prefix="snapsync-run-", ignore_cleanup_errors=True
        ) as made:
            report, notes = Path(made) / "run", Path(made) / "data"
            report.touch(0o600)
            notes.touch(0o600)
            variables = {
                "SNAPSYNC_RUN_ID": self.run_id,
                REPORT: str(report),
                NOTES: str(notes),
            }
            watch = LeaseWatch(self.context.client(), self.run_id, self.context.environment)
            began, began_at = time.monotonic(), _now()
            with watch.running():
                environment = {**self.context.environment, **variables}
                status = supervise(self.program, self.words, environment)
            # A clock that is set meanwhile must not end the run before it began.
            times = {
                "started_at": format_moment(began_at),
                "ended_at": format_moment(began_at + time.monotonic() - began),
            }
            known = {**self.known, **times, "exit_status": status}
            written = WrittenRun(self.run_id, self.data, known=known)
            seen = [*given_tree(self.context.environment), *watch.seen(), *read_notes(notes)]
            return self._record(written, seen, report, status)

    def _record(self, written: WrittenRun, seen: list[Seen], report: Path, status: int) -> int:
        """Record it; if that fails, keep what there is and say where. Gives the exit code."""
        context, options = self.context, self.options
        recorded: Run | None = None
        unpushed: dict[str, str] = {}
        try:
            named = {each.named for each in self.data}
            used = [each for each in merged(seen) if each.snapshot_id not in named]
            written = replace(written, data=(*written.data, *used_data(context, used)))
            told = read_report(report)
            unpushed = {**self.paths, **told.paths} if status == 0 else {}
            written = _with_report(written, told)
            author = author_of(options.by, options.note or told.written.note)
            for name, path in list(unpushed.items()):
                written = self._pushed(written, name, path, author.by)
                del unpushed[name]
            recorded = record_here(context, self.store, written, self.run_id, author, deep=False)
        except (Exception, KeyboardInterrupt, BaseExceptionGroup) as failure:  # noqa: BLE001 - kept
            error = _error_of(failure)
            place = keep_for_later(context, written, self.run_id, unpushed, report)
            self._say_unrecorded(error, place, status)
            return int(error.exit_code) if options.strict and status == 0 else status
        self._say_recorded(recorded, status)
        return status

    def _pushed(self, written: WrittenRun, name: str, path: str, by: str) -> WrittenRun:
        from snapctl.outputs import push_output

        snapshot_id = push_output(self.context, self.store, path, by)
        output = Named(snapshot_id, name, is_proven=True)
        return replace(written, outputs=(*written.outputs, output))

    def _say_recorded(self, run: Run, status: int) -> None:
        output = self.context.output
        if self.options.save:
            try:
                Path(self.options.save).write_bytes(run.render())
            except OSError as error:
                output.note(f"the record can't be written to {self.options.save}: {error.strerror}")
        if output.as_json:
            output.print_json(run.to_json())
        ended = "" if status == 0 else f", which ended with {status},"
        output.note(f"run {run.run_id}{ended} is recorded in {self.store}")
        for use in run.outputs:
            output.note(f"output {use.path or ''} is {use.snapshot_id}")

    def _say_unrecorded(self, error: SnapsyncError, place: Path | None, status: int) -> None:
        """Say it even if nothing else is to be said: it would be lost."""
        stderr = self.context.output.stderr
        ended = "has succeeded" if status == 0 else f"has ended with {status}"
        later = "What is known of it is lost, for no file could be written either."
        if place is not None:
            words = ("snapctl", "run", "record", str(place), "--store", self.store)
            later = f"What is known of it is kept in {place}. Record it later with"
            later += f" `{shlex.join(words)}`."
        stderr.write(
            f"snapctl: the command {ended}, but the run {self.run_id} is NOT RECORDED:"
            f" {error.message}\n"
            f"hint: {error.hint}\n"
            f"hint: {later}\n"
        )
        stderr.flush()


def _tree(context: Context) -> WorkingTree | None:
    found = working_tree(os.getcwd(), context.environment)
    if isinstance(found, str):
        context.output.note(f"the run is recorded without a commit: {found}")
        return None
    return found


def _output_paths(outputs: tuple[str, ...]) -> dict[str, str]:
    """Read `PATH` and `NAME=PATH`; a path with `=` in it is written `./a=b` or with a name."""
    paths: dict[str, str] = {}
    for each in outputs:
        name, equals, path = each.partition("=")
        if not equals or "/" in name:
            name = path = each
        if not path or not name or name in paths:
            raise UsageError(f"--output names nothing, or {name[:80]!r} twice")
        paths[name] = path
    return paths


def _with_report(written: WrittenRun, told: Report) -> WrittenRun:
    """Add what the command said of itself."""
    known, more = dict(written.known), told.written.known
    known["parameters"] = {**more.get("parameters", {}), **known["parameters"]}
    known["metrics"] = more.get("metrics", {})
    if "seed" not in known and "seed" in more:
        known["seed"] = more["seed"]
    environment, said = known["environment"], more.get("environment", Environment())
    known["environment"] = replace(environment, extra=said.extra)
    return replace(
        written,
        data=(*written.data, *told.written.data),
        outputs=(*written.outputs, *told.written.outputs),
        known=known,
    )


def _shown(words: tuple[str, ...], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Make of a command line what a record may hold: no secrets, plain characters, not endless."""
    masked = mask_arguments(words[:ARGUMENTS_MAX], secret_values(environment))
    return tuple(_plain(word) for word in masked)


def _plain(word: str) -> str:
    shown = "".join(
        sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in word
    )
    if len(shown) <= ARGUMENT_MAX_CHARACTERS:
        return shown
    return f"{shown[: ARGUMENT_MAX_CHARACTERS - 40]}... ({len(shown)} characters)"


def _error_of(failure: BaseException) -> SnapsyncError:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, SnapsyncError):
        return failure
    if isinstance(failure, KeyboardInterrupt):
        return Interrupted("interrupted while it was recorded")
    if isinstance(failure, OSError):
        return ActionFailed(f"{failure.strerror}: {failure.filename}")
    return InternalError(f"unexpected {type(failure).__name__}: {failure}")


def _now() -> float:
    return time.time()  # noqa: TID251 - the clock that the run is dated by
