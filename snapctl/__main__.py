"""The entry of `snapctl`: the environment comes in here and the exit code goes out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

import click

from snapctl.app import app
from snapctl.context import Context
from snapctl.process import prepare
from snapd.model.errors import (
    ActionFailed,
    ExitCode,
    InternalError,
    Interrupted,
    SnapsyncError,
    UsageError,
)

_COMPLETE = "_SNAPCTL_COMPLETE"


def main() -> int:
    """Run one command and return its exit code."""
    prepare()
    arguments = sys.argv[1:]
    context = Context(environment=dict(os.environ))
    if _COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, "snapctl", _COMPLETE, os.environ[_COMPLETE])
    return conclude(partial(_run, arguments, context), context, arguments)


def conclude(run: Callable[[], int], context: Context, arguments: list[str]) -> int:
    """Run a command to the last byte of its output, and give the exit code."""
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon(sys.stdout, sys.stderr)
        return int(ExitCode.FAILED)
    except OSError as error:
        _abandon(sys.stdout)
        return _fail(ActionFailed(f"can't write to stdout: {error.strerror}"), context, arguments)
    return code


def _run(arguments: list[str], context: Context) -> int:
    try:
        with app.make_context("snapctl", arguments, obj=context) as ctx:
            returned = app.invoke(ctx)
        return int(returned or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as usage:
        print(usage.format_message(), file=sys.stderr)
        return int(ExitCode.USAGE)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as failure:  # noqa: BLE001 - the last
        return explain(failure, context, arguments)


def explain(failure: BaseException, context: Context, arguments: list[str]) -> int:
    """Say on stderr what ended a command, and give the exit code."""
    error = error_of(failure)
    debugging = context.verbose or context.environment.get("SNAPSYNC_DEBUG")
    if isinstance(error, InternalError) and debugging:
        import traceback

        traceback.print_exception(failure)
    return _fail(error, context, arguments)


def error_of(failure: BaseException) -> SnapsyncError:
    """Say in the words of our errors what ended a command; of a group the first counts."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, SnapsyncError):
        return failure
    if isinstance(failure, click.ClickException):
        return _from_click(failure)
    if isinstance(failure, (KeyboardInterrupt, click.Abort)):
        return Interrupted("interrupted")
    return InternalError(
        f"unexpected {type(failure).__name__}: {failure}",
        hint="This is a defect: please report it with what the same command prints with --verbose.",
    )


def _from_click(usage: click.ClickException) -> UsageError:
    command = getattr(getattr(usage, "ctx", None), "command_path", "snapctl")
    return UsageError(usage.format_message(), hint=f"See {command} --help.")


def _fail(error: SnapsyncError, context: Context, arguments: list[str]) -> int:
    # A usage error may end the parsing before --json was seen.
    if not context.as_json and {"--json", "--events"} & set(arguments):
        context.as_json = True
        context.__dict__.pop("output", None)
    context.output.error(error)
    if path := context.environment.get("SNAPSYNC_TERMINATION_LOG"):
        from snapctl.last_words import leave_last_words

        leave_last_words(path, error)
    return int(error.exit_code)


def _abandon(*streams: TextIO) -> None:
    """Point streams at nothing, so that the interpreter's last flush can't fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
