"""A supervised command has the terminal, gets every signal, and its end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snapctl.supervising import supervise
from snapd.model.errors import UsageError
from tests.unit.snapctl.running import IN_BACKGROUND

SUPERVISED = (
    "import os, sys\n"
    "from snapctl.process import prepare\n"
    "from snapctl.supervising import supervise\n"
    "prepare(); sys.exit(supervise(sys.argv[1], sys.argv[1:], dict(os.environ)))"
)

HEARING_ALL = ("env", "--default-signal=HUP,INT,QUIT")
"""Whoever runs the tests may ignore these, as nohup does, and then no shell can trap them."""


def start(*words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HEARING_ALL, *before, sys.executable, "-c", SUPERVISED, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_end_of_the_command_is_ours(script: str, code: int) -> None:
    process = start("/bin/sh", "-c", script)
    process.communicate(timeout=60)
    assert process.returncode == code


def test_the_command_has_our_streams() -> None:
    process = start("/bin/cat")
    assert process.communicate("hello", 30)[0] == "hello"


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"])
def test_a_signal_is_passed_on(name: str) -> None:
    # It ends by itself, lest it outlives a test that failed.
    script = f"trap 'echo got; exit 5' {name}; echo ready; for _ in $(seq 999); do sleep 0.03; done"
    process = start("/bin/sh", "-c", script)
    ready(process)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.communicate(timeout=60)[0] == "got\n"
    assert process.returncode == 5


def test_a_signal_that_ends_the_command_is_told_as_shells_do() -> None:
    process = start("/bin/sh", "-c", "echo ready; exec cat")
    ready(process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_ctrl_c_of_a_terminal_reaches_the_command_once() -> None:
    leader, follower = os.openpty()
    # A shell that is told just before it reads would hear of it only after it has read.
    again = "while read -t 0.1 line || [ $? -gt 128 ]; do :; done"
    script = f"trap 'echo got' INT; echo ready; {again}; echo over"
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", SUPERVISED, "/bin/bash", "-c", script],
        stdin=follower,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(follower)
    ready(process)
    os.write(leader, b"\x03")
    assert process.stdout is not None
    assert process.stdout.readline() == "got\n"
    os.write(leader, b"\x04")
    assert process.communicate(timeout=60)[0] == "over\n"
    os.close(leader)


def test_ctrl_c_that_was_ignored_stays_so_for_the_command() -> None:
    script = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    process = start(sys.executable, "-c", script, before=IN_BACKGROUND)
    assert process.communicate(timeout=60)[0] == "True\n"
    process = start(sys.executable, "-c", script)
    assert process.communicate(timeout=60)[0] == "False\n"


def test_the_command_blocks_no_signals_and_has_the_usual_pipe(tmp_path: Path) -> None:
    script = (
        "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()));"
        "print(open('/proc/self/status').read().split('SigIgn:')[1].split()[0])"
    )
    process = start(sys.executable, "-I", "-c", script)
    blocked, ignored = process.communicate(timeout=60)[0].splitlines()
    assert blocked == "set()"
    # Python itself ignores two signals; of those that have names, none more.
    plain = subprocess.run(
        [*HEARING_ALL, sys.executable, "-I", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    named = (1 << 31) - 1
    assert int(ignored, 16) & named == int(plain.stdout.splitlines()[1], 16) & named


def test_what_can_not_be_run_is_said(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("no program")
    file.chmod(0o755)
    for program in (str(file), str(tmp_path / "absent")):
        with pytest.raises(UsageError, match="can't run"):
            supervise(program, [program], {})
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
