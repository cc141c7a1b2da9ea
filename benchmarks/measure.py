"""Run a command as a whole process and take what the kernel says of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.01
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """Wall time, CPU time of all processes concerned, and the largest resident set."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int

    def plus(self, cpu_seconds: float, peak_rss_bytes: int) -> Figures:
        """Add a server process that worked for the command."""
        return Figures(
            self.wall_seconds,
            self.cpu_seconds + cpu_seconds,
            max(self.peak_rss_bytes, peak_rss_bytes),
        )


def run(command: Sequence[str], environment: Mapping[str, str], *, log: Path) -> Figures:
    """Time one command; its output goes to `log`, a failure ends the benchmark with it.

    The resident set is read while it runs, because what `wait4` tells of a child begins with the
    resident set of the process that forked it.
    """
    peak_rss_bytes = 0
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        while True:
            peak_rss_bytes = max(peak_rss_bytes, peak_rss_bytes_of(process.pid))
            time.sleep(LOOK_SECONDS)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
        wall_seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 and b"BENCH-OK" not in log.read_bytes():
        text = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise SystemExit(f"{command[0]} ended with {process.returncode}:\n{text}")
    return Figures(wall_seconds, usage.ru_utime + usage.ru_stime, peak_rss_bytes)


def cpu_seconds_of(process_id: int) -> float:
    """Read the CPU time that a running process has used so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peak_rss_bytes_of(process_id: int) -> int:
    """Read the largest resident set that a running process has had so far."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
