"""Run part of a test without root's powers, which see through every permission."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def nobodys_directory() -> Iterator[Path]:
    """Give a directory that the ordinary user owns and can reach."""
    path = Path(tempfile.mkdtemp(prefix="snapsync-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o755)
        yield path
    finally:
        for directory, _, _ in os.walk(path, onerror=None):
            os.chmod(directory, 0o700)
        shutil.rmtree(path)


def as_ordinary_user(function: Callable[[], object]) -> None:
    """Call `function` in a child process that is not root; its exception fails the test."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(_run(function, writer))
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        report = file.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, report


def _run(function: Callable[[], object], writer: int) -> int:
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        function()
    except BaseException:  # noqa: BLE001 - the parent raises it again
        os.write(writer, traceback.format_exc().encode())
        return 1
    return 0
