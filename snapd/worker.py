"""A transfer process: fetches small objects into the cache that the node keeps open.

It serves one socket and ends when that is closed, so it never outlives its node for long.
"""

from __future__ import annotations

import gc
import marshal
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from snapd.disk.joining import PressTerms
from snapd.model.settings import LogSettings, TransferSettings

_BOOT = (
    "import sys;sys.path[:]=sys.argv[2].split(chr(31));"
    "from snapd.worker import main;main(int(sys.argv[1]))"
)
_GARBAGE_THRESHOLD = 100_000
"""Requests make no cycles, so it is enough to look for them now and then."""


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """Starts transfer processes; called with the far end of a socket, blocking for a moment."""

    terms: PressTerms
    transfer: TransferSettings
    log: LogSettings
    lanes: int

    def __call__(self, far: socket.socket) -> subprocess.Popen[bytes]:
        """Start a process on the other end of `far`'s pair."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, str(far.fileno()), chr(31).join(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(far.fileno(),),
            # Ctrl-C reaches the whole group of the terminal; the node decides what it means.
            process_group=0,
        )
        assert process.stdin is not None
        with process.stdin as told:
            orders: Any = (*self.terms,), asdict(self.transfer), asdict(self.log), self.lanes
            marshal.dump(orders, told)
        return process


def main(descriptor: int) -> None:
    """Serve the socket with that descriptor until its other end is closed."""
    # Late: the node imports this module too, and must not pay for libcurl before it is needed.
    from snapd.disk.joining import open_press
    from snapd.disk.writers import BlobWriter
    from snapd.remote.worker_frames import receive
    from snapd.remote.worker_lane import serve
    from snapd.runtime.log import set_up_logging

    terms, transfer, log, lanes = marshal.load(sys.stdin.buffer)
    set_up_logging(LogSettings(**log))
    # Blobs have the modes of their names, whoever started the node.
    os.umask(0)
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    with socket.socket(fileno=descriptor) as connection, open_press(PressTerms(*terms)) as press:
        serve(
            connection,
            receive(connection),
            TransferSettings(**transfer),
            lambda packed: BlobWriter.unpacked(press, packed),
            lanes=lanes,
            set_up_log=lambda told: set_up_logging(LogSettings(**told)),
        )
