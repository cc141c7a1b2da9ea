"""Run a command to its end as if it stood in our place: same terminal, every signal, its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from snapd.model.errors import UsageError

PASSED_ON = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH),
)
_FROM_KERNEL = 0x80
"""`si_code` of a signal of the terminal, which the whole foreground group got, the command too."""
_LOOK_SECONDS = 5.0
_SET_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def supervise(program: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command and return its exit status; of one that a signal ended, its number and 128.

    Signals that somebody sends to this process are passed on. Raises `UsageError` for a program
    that can't be started.
    """
    with _held_back() as before:
        try:
            pid = os.posix_spawn(
                program,
                [*words],
                dict(environment),
                setsigmask=before - {signal.SIGINT},
                setsigdef=_SET_BY_PYTHON,
            )
        except OSError as error:
            raise UsageError(
                f"can't run {program}: {error.strerror}",
                hint="A script needs a first line such as #!/bin/sh.",
            ) from error
        return _await(pid)


def _await(pid: int) -> int:
    waited_for = {*PASSED_ON, signal.SIGCHLD}
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        got = signal.sigtimedwait(waited_for, _LOOK_SECONDS)
        if got is not None and got.si_signo != signal.SIGCHLD and got.si_code != _FROM_KERNEL:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, got.si_signo)


@contextmanager
def _held_back() -> Iterator[set[signal.Signals]]:
    """Keep signals for `_await` during the block; what is left of them has no effect afterwards.

    If Ctrl-C was ignored when we started, as a shell does for `command &`, the command ignores it,
    too: `prepare` noted that by blocking it.
    """
    before = {signal.Signals(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
    handler = signal.getsignal(signal.SIGINT)
    if signal.SIGINT in before:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    try:
        yield before
    finally:
        while signal.sigtimedwait({*PASSED_ON, signal.SIGCHLD}, 0) is not None:
            pass
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
