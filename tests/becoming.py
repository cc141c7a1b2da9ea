"""How a process that was forked from one with everything loaded becomes a program."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn


def become(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: str,
    streams: Sequence[int],
    run: Callable[[], object],
) -> NoReturn:
    """Be the program `words[0]` up to its end, with open files as its standard streams.

    The exit code is what `run`, the program's own `main`, returns or exits with.
    """
    code: object = 1
    try:
        for number, opened in enumerate(streams):
            os.dup2(opened, number)
        for opened in set(streams):
            os.close(opened)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        sys.argv = list(words)
        code = run()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
