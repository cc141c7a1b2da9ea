"""The console script: loads the command line with the garbage collector at rest.

A short command makes no garbage worth looking for, and its modules are looked through again and
again while they are loaded and when the interpreter ends: a seventh of all that it takes.
"""

from __future__ import annotations

import gc


def main() -> int:
    """Run one command and return its exit code."""
    gc.disable()
    try:
        from snapctl.__main__ import main as run
    finally:
        gc.enable()
    gc.freeze()
    code = run()
    gc.freeze()
    return code
