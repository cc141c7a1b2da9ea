"""The console script: loads the command line with the garbage collector at rest.

A short command makes no garbage worth looking for, and its modules are looked through again and
again while they are loaded and when the interpreter ends: a seventh of all that it takes.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> int:
    """Run one command and return its exit code."""
    gc.disable()
    if (code := _run_plain()) is not None:
        gc.freeze()
        return code
    try:
        from snapctl.__main__ import main as run
    finally:
        gc.enable()
    gc.freeze()
    code = run()
    gc.freeze()
    return code


def _run_plain() -> int | None:
    """Do what needs no command line but a word and a path, which also makes no garbage."""
    arguments, environment = sys.argv[1:], dict(os.environ)  # noqa: TID251 - an entry of the process
    if arguments[:1] == ["id"]:
        from snapctl.plain_id import plain_id, run_plain_id

        directory = plain_id(arguments, environment)
        return None if directory is None else run_plain_id(directory, environment)
    if arguments[:1] == ["checkout"]:
        from snapctl.plain_checkout import plain_checkout, run_plain_checkout

        asked = plain_checkout(arguments, environment)
        return None if asked is None else run_plain_checkout(asked, arguments, environment)
    return None
