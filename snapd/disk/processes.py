"""Whether a process that was seen once still lives: by pidfd and start time, not by its number."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import NamedTuple

from snapd.disk.staging import boot_id
from snapd.model.leases import ProcessMark

_INITIAL_NAMESPACE = "pid:[4026531836]"
"""The one PID namespace that every process can be seen from; its name is part of the kernel."""
_STATE, _THREADS, _STARTED = 0, 17, 19
"""Positions in `/proc/PID/stat`, counted from behind the command's name."""


class _Seen(NamedTuple):
    """What `/proc` tells of a process."""

    started_ticks: int
    ended: bool


def mark_process(pid: int) -> ProcessMark:
    """Mark a process that lives now and is seen by this process under that number."""
    seen = _look(pid)
    started_ticks = 0 if seen is None else seen.started_ticks
    return ProcessMark(pid, started_ticks, boot_id(), pid_namespace())


def pid_namespace() -> str:
    """Name the namespace in which this process knows others by number; empty if unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def may_live(mark: ProcessMark) -> bool:
    """Tell whether the marked process still lives; what can't be known counts as life.

    One of an earlier run of the machine is dead. One of another PID namespace can only be looked
    for from the initial one; anywhere else it counts as alive.
    """
    boot = boot_id()
    if mark.pid <= 0:
        return False
    if boot and mark.boot_id and mark.boot_id != boot:
        return False
    here = pid_namespace()
    if here and mark.pid_namespace and mark.pid_namespace != here:
        return here != _INITIAL_NAMESPACE or _may_live_below(mark)
    try:
        pidfd = os.pidfd_open(mark.pid)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        return _lives_by_start_time(mark)
    try:
        return _lives_by_pidfd(mark, pidfd)
    finally:
        os.close(pidfd)


def _may_live_below(mark: ProcessMark) -> bool:
    """Look for a process by start time and namespace, for its number means nothing here."""
    if _look(1) is None:
        return True  # `/proc` hides what belongs to others
    return any(_could_be(pid, mark) for pid in _numbers())


def _numbers() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _could_be(pid: int, mark: ProcessMark) -> bool:
    seen = _look(pid)
    if seen is None or mark.started_ticks not in (0, seen.started_ticks):
        return False
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == mark.pid_namespace
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True


def _lives_by_pidfd(mark: ProcessMark, pidfd: int) -> bool:
    """Compare the start time while the descriptor keeps the number from being anybody else's.

    If the process has not ended after the look, the look was at this very process.
    """
    seen = _look(mark.pid)
    if _has_ended(pidfd):
        return False
    return seen is None or not mark.started_ticks or seen.started_ticks == mark.started_ticks


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _lives_by_start_time(mark: ProcessMark) -> bool:
    seen = _look(mark.pid)
    if seen is None:
        return _has_number(mark.pid)
    return not seen.ended and (not mark.started_ticks or seen.started_ticks == mark.started_ticks)


def _has_number(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _look(pid: int) -> _Seen | None:
    """Read `/proc/PID/stat`; None if there is none, or none for our eyes."""
    with suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as source:
            fields = source.read().rpartition(b")")[2].split()
        ended = fields[_STATE] in (b"Z", b"X") and int(fields[_THREADS]) <= 1
        return _Seen(int(fields[_STARTED]), ended)
    return None
