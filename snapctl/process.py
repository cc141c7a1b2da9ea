"""What a command line does for its own process before anything else."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def prepare() -> None:
    """Let SIGTERM end a command as Ctrl-C does, and have three streams that take any path."""
    _handle_signals()
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path need not be UTF-8; it is printed as it is rather than not at all.
        sys.stdout.reconfigure(errors="surrogateescape")


def _open_closed_streams() -> None:
    """Point streams that the caller closed at nothing; else a file or socket takes their number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    # They are None if they were closed, whatever their types say; they stay open to the end.
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


def _handle_signals() -> None:
    """Let SIGTERM do what Ctrl-C does, whatever handles that at the moment (an event loop, say)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts `command &` with Ctrl-C ignored. Blocked, it has no effect either, but
        # has a handler that SIGTERM can use.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.raise_signal(signal.SIGINT)
