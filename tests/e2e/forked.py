"""Commands of `snapctl` as processes forked from one that has loaded everything already.

Each is a process with its own environment, working directory and streams, as an installed one. What
it lacks is the start: loading takes longer than most commands, and a test that asks dozens of
questions is about the answers. What is about the start, or about signals, uses the installed one.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tests.becoming import become

_LOADED = ("snapctl.__main__", "snapctl.stores", "snapd.remote.opening", "snapd.actions.push")


class Forking:
    """The process that forks; `run` is for one thread."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def run(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        given: str | None,
        timeout_seconds: float,
    ) -> tuple[int, str, str]:
        """Run `snapctl` to its end; give its exit code, stdout and stderr."""
        with (
            tempfile.NamedTemporaryFile() as stdin,
            tempfile.NamedTemporaryFile() as stdout,
            tempfile.NamedTemporaryFile() as stderr,
        ):
            stdin.write((given or "").encode())
            stdin.flush()
            asked = {
                "arguments": list(arguments),
                "environment": dict(environment),
                "cwd": str(cwd),
                "streams": [stdin.name, stdout.name, stderr.name],
            }
            code = self._ask(asked, timeout_seconds)
            return code, stdout.read().decode(), stderr.read().decode()

    def _ask(self, asked: dict[str, Any], timeout_seconds: float) -> int:
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        questions.write(json.dumps(asked).encode() + b"\n")
        questions.flush()
        if not select.select([answers], [], [], timeout_seconds)[0]:
            self._process.kill()
            raise subprocess.TimeoutExpired(asked["arguments"], timeout_seconds)
        answer = answers.readline()
        assert answer, "the process that forks has ended"
        return int(answer)


@contextmanager
def forking(*modules: str, environment: Mapping[str, str] | None = None) -> Iterator[Forking]:
    """Start the process that forks, which loads further `modules`; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    ) as process:
        yield Forking(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    """Run what is asked on stdin, line by line, and answer with exit codes."""
    import snapctl.commands

    for module in pkgutil.iter_modules(snapctl.commands.__path__, "snapctl.commands."):
        importlib.import_module(module.name)
    for name in (*_LOADED, *sys.argv[1:]):
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "wb")
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line), answers)
        _, status = os.waitpid(pid, 0)
        answers.write(b"%d\n" % os.waitstatus_to_exitcode(status))
        answers.flush()


def _become(asked: dict[str, Any], answers: BinaryIO) -> None:
    """Be the command in a forked process, up to its end."""
    from snapctl.start import main as snapctl

    def run() -> int:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - ends with the process
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        return snapctl()

    answers.close()
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)
    become(
        ["snapctl", *asked["arguments"]],
        environment=asked["environment"],
        cwd=asked["cwd"],
        streams=list(map(os.open, asked["streams"], flags)),
        run=run,
    )


if __name__ == "__main__":
    main()
