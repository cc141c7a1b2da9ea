"""Run an installed command in this process and kill it at a chosen step; see `tests.crash.living`.

A step is a call that changes the file system, told by its name and by the functions of ours that
led to it. Without a step to die at, all of them are noted down.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from snapd import worker
from tests.crash.steps import arm

OURS = ("/snapd/", "/snapctl/")
DEPTH = 3


def path_to(frame: FrameType | None) -> str:
    """Name the innermost functions of ours."""
    found: list[str] = []
    while frame is not None and len(found) < DEPTH:
        name = frame.f_code.co_filename
        if any(part in name for part in OURS) and "/tests/" not in name:
            found.append(f"{Path(name).stem}.{frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def noting(into: str) -> Callable[[str], bool]:
    """Note each step in a file, one a line, in the order in which they are made."""
    write = os.write
    fd = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(name: str) -> bool:
        write(fd, f"{name} < {path_to(sys._getframe(2))}\n".encode())
        return False

    return note


def dying(step: str, time: int) -> Callable[[str], bool]:
    """Die the `time`-th time that a step comes."""
    seen: Counter[str] = Counter()
    one_at_a_time = threading.Lock()

    def is_last(name: str) -> bool:
        label = f"{name} < {path_to(sys._getframe(2))}"
        if label != step:
            return False
        with one_at_a_time:
            seen[label] += 1
            return seen[label] == time

    return is_last


def children() -> list[int]:
    """List the processes that this one started."""
    found = Path("/proc/self/task").glob("*/children")
    return [int(pid) for one in found for pid in one.read_text(encoding="ascii").split()]


def obey(order: dict[str, Any], victims: Callable[[], list[int]]) -> None:
    is_last = noting(order["note"]) if order["note"] else dying(order["step"], order["time"])
    arm(is_last, victims)


def be_worker(order: str, descriptor: int) -> None:
    """Be a transfer process, under the same order as its node, which dies with it."""
    node = os.getppid()
    obey(json.loads(order), lambda: [node, os.getpid()])
    worker.main(descriptor)


def main() -> None:
    text = sys.argv[1]
    order = json.loads(text)
    sys.argv[1:] = order["arguments"]
    program: Callable[[], int] = import_module(f"{order['program']}.__main__").main
    worker._BOOT = (
        "import sys;sys.path[:]=sys.argv[2].split(chr(31));"
        f"from tests.crash.doomed import be_worker;be_worker({text!r}, int(sys.argv[1]))"
    )
    obey(order, lambda: [*children(), os.getpid()])
    sys.exit(program())


if __name__ == "__main__":
    main()
