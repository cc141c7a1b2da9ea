"""Daemons and commands as processes forked from one that has loaded everything.

Each is a process of its own, with its environment, working directory and log, that runs the same
`main` as the installed command and is killed as that would be. What it lacks is the start: loading
takes longer than the life of most that die here, and nothing on disk depends on it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.becoming import become

REPOSITORY = Path(__file__).parents[2]
REQUEST_BYTES_MAX = 64 * 1024
PROGRAMS = {
    "snapd": "snapd.__main__",
    "snapctl": "snapctl.start",
    "tests.crash.doomed": "tests.crash.doomed",
}
LOADED = (
    *PROGRAMS.values(),
    "snapctl.__main__",
    "snapctl.engine",
    "snapctl.commands.pull",
    "snapd.daemon",
    "snapd.remote.s3",
    "snapd.remote.credentials",
)


class Born:
    """A forked process, with what `subprocess.Popen` has for a started one."""

    def __init__(self, pid: int, told: socket.socket) -> None:
        self.pid = pid
        self._told = told
        self._code: int | None = None

    def poll(self) -> int | None:
        """Give the exit code, if it has ended."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and give the exit code; raises `TimeoutExpired`."""
        if self._code is not None:
            return self._code
        if not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        # Until the socket is closed the dead process keeps its ID.
        with self._told:
            self._code = int(self._told.recv(16))
        return self._code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Nursery:
    """The process that forks."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests

    def start(
        self, program: str, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, log: int
    ) -> Born:
        """Fork a process that runs one of `PROGRAMS`; `log` is where all that it says goes."""
        asked = [program, list(arguments), dict(env), str(cwd)]
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            text = json.dumps(asked).encode()
            assert len(text) < REQUEST_BYTES_MAX
            socket.send_fds(self._requests, [text], [log, far.fileno()])
        return Born(int(near.recv(16)), near)


@contextmanager
def open_nursery() -> Iterator[Nursery]:
    """Start the process that forks; it ends with the block."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=far.fileno(), cwd=REPOSITORY
        )
    try:
        with near:
            yield Nursery(near)
    finally:
        process.wait()


def main() -> None:
    """Fork what is asked for on stdin, until the other end is closed."""
    for name in LOADED:
        import_module(name)
    requests = socket.socket(fileno=os.dup(0))
    minders: list[int] = []
    while True:
        text, (*descriptors,), _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 2)
        if not text:
            return
        minders = [pid for pid in minders if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if (pid := os.fork()) == 0:
            requests.close()
            _mind(json.loads(text), *descriptors)
        minders.append(pid)
        for each in descriptors:
            os.close(each)


def _mind(asked: list[Any], log: int, told: int) -> None:
    """Fork the process itself, tell its ID and its end, and let go of it when that is known."""
    try:
        if (pid := os.fork()) == 0:
            os.close(told)
            program, arguments, environment, cwd = asked
            become(
                [program, *arguments],
                environment=environment,
                cwd=cwd,
                streams=(os.open(os.devnull, os.O_RDONLY), log, log),
                run=import_module(PROGRAMS[program]).main,
            )
        with socket.socket(fileno=told) as teller:
            teller.send(b"%d" % pid)
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            exited = ended.si_code == os.CLD_EXITED
            teller.send(b"%d" % (ended.si_status if exited else -ended.si_status))
            teller.recv(1)
            os.waitpid(pid, 0)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
