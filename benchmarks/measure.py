"""Run a command as a whole process and take what the kernel says of it and of its children."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.02
FAMILY_SECONDS = 0.4
"""Looking for children means looking at every thread, which a look at memory can do without."""
PATIENCE_SECONDS = 300.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
KEPT_CHARACTERS = 2000
RIGHT_ANSWER = b"BENCH-OK"
"""A command that crashes at its exit, after the right result, has done its work: it says so."""


class Failed(Exception):
    """A command failed or took too long; the message says which, and ends with its output."""


@dataclass(frozen=True)
class Figures:
    """Wall time, CPU time of all processes concerned, and the largest resident set of all."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int

    def times(self, factor: int) -> Figures:
        """Tell what a task of so many times the size would take, if time grows as the task does."""
        return Figures(self.wall_seconds * factor, self.cpu_seconds * factor, self.peak_rss_bytes)

    def plus(self, cpu_seconds: float, peak_rss_bytes: int) -> Figures:
        """Add a server process that worked for the command."""
        return Figures(
            self.wall_seconds,
            self.cpu_seconds + cpu_seconds,
            max(self.peak_rss_bytes, peak_rss_bytes),
        )


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    log: Path,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Figures:
    """Time one command, whose output goes to `log`; raise `Failed` if it does not end well.

    The resident sets are read while it runs, because what `wait4` tells of a child begins with the
    resident set of the process that forked it, and leaves its children out.
    """
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        watch = _Watch(process.pid, started + patience_seconds)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            wall_seconds = time.monotonic() - started
            watch.end()
    process.returncode = os.waitstatus_to_exitcode(status)
    if watch.killed:
        raise Failed(f"not done after {patience_seconds:.0f} s")
    if process.returncode != 0 and RIGHT_ANSWER not in log.read_bytes():
        text = log.read_text(encoding="utf-8", errors="replace")[-KEPT_CHARACTERS:].strip()
        raise Failed(f"{Path(command[0]).name} ended with {process.returncode}: {text}")
    return Figures(wall_seconds, usage.ru_utime + usage.ru_stime, watch.peak_rss_bytes)


class _Watch(threading.Thread):
    """Look at a running command's memory now and then, and kill it at its deadline."""

    def __init__(self, process_id: int, deadline: float) -> None:
        super().__init__(daemon=True)
        self._process_id = process_id
        self._deadline = deadline
        self._ended = threading.Event()
        self.peak_rss_bytes = 0
        self.killed = False
        self.start()

    def run(self) -> None:
        family, search_at = [self._process_id], time.monotonic() + FAMILY_SECONDS / 4
        while not self._ended.wait(LOOK_SECONDS):
            if time.monotonic() > search_at:
                family, search_at = family_of(self._process_id), time.monotonic() + FAMILY_SECONDS
            together = sum(_peak_rss_bytes(each) for each in family)
            self.peak_rss_bytes = max(self.peak_rss_bytes, together)
            if time.monotonic() > self._deadline:
                self.killed = True
                os.killpg(self._process_id, signal.SIGKILL)
                return

    def end(self) -> None:
        self._ended.set()
        self.join()


def cpu_seconds_of(process_id: int) -> float:
    """Read the CPU time that a running process, its children and theirs have used so far."""
    ticks = 0
    for each in family_of(process_id):
        try:
            stat = Path(f"/proc/{each}/stat").read_text(encoding="ascii")
        except OSError:
            continue
        # User and system time, its own and those of the children that it has waited for.
        ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return ticks / TICKS_PER_SECOND


def peak_rss_bytes_of(process_id: int) -> int:
    """Add up the largest resident sets that a process and its living children have had so far."""
    return sum(_peak_rss_bytes(each) for each in family_of(process_id))


def family_of(process_id: int) -> list[int]:
    """List a process and all that descend from it, as far as they live."""
    found = [process_id]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, children.read_text(encoding="ascii").split())
            except OSError:
                continue
    return found


def _peak_rss_bytes(process_id: int) -> int:
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
