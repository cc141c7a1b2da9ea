"""Run something in a child process that dies before its n-th change of the file system."""

from __future__ import annotations

import os
import signal
import sqlite3
import traceback
import warnings
from collections.abc import Callable
from itertools import count
from typing import Any

from snapd.disk import fsops
from snapd.disk.index import Index

_CALLS = (
    "mkdir",
    "link",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "chmod",
    "fchmod",
    "utime",
    "fsync",
)
_WRITES = ("write", "pwrite", "writev")
_MAKING = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)
_OWN = ("syncfs", "_renameat2", "reflink")


def run_until(step: int, work: Callable[[], object]) -> int:
    """Run `work` in a child that kills itself before its `step`-th change; 0: it ended before.

    A write that is the last step puts half of its bytes on disk first.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        steps = count(1)
        arm(lambda _name: next(steps) == step)
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child of a test never returns into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _only_this() -> list[int]:
    return [os.getpid()]


def arm(is_last: Callable[[str], bool], victims: Callable[[], list[int]] = _only_this) -> None:
    """Ask before each change of the file system, by the call's name, whether to die there.

    `victims` are the processes that die then, this one the last of them.
    """
    kill = os.kill

    def wrap(owner: Any, name: str, *, torn: bool = False) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & _MAKING:
                return real(*arguments, **options)
            if is_last(name):
                if torn:
                    fd, data, *offset = arguments
                    data = b"".join(data) if name == "writev" else bytes(data)
                    half = data[: len(data) // 2]
                    real(fd, [half] if name == "writev" else half, *offset)
                for pid in victims():
                    kill(pid, signal.SIGKILL)
            return real(*arguments, **options)

        setattr(owner, name, call)

    for name in ("open", *_CALLS):
        wrap(os, name)
    for name in _WRITES:
        wrap(os, name, torn=True)
    for name in _OWN:
        wrap(fsops, name)
    wrap(Index, "_execute")
    wrap(sqlite3, "connect")
