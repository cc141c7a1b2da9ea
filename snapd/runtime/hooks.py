"""Run a hook: a program of the administrator's, with a bound on its time and on what it says."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE, STDOUT
from types import MappingProxyType
from typing import NamedTuple

import anyio
from anyio.abc import ByteReceiveStream, Process

SAID_MAX_BYTES = 4096
"""So much of the end of what a hook wrote is kept."""
ASKED_TO_END_SECONDS = 2.0
"""Between SIGTERM and SIGKILL."""
_LAST_WORDS_SECONDS = 0.5
"""What a hook left running may keep its output open; it is not listened to for longer."""
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/",
    }
)
"""All that a hook gets beside what it is told: the daemon's own environment holds credentials."""


class HookRan(NamedTuple):
    """How a hook ended; `status` is negative for a signal and None if it could not be started."""

    status: int | None
    timed_out: bool
    said: str


async def run_hook(
    command: Sequence[str], told: Mapping[str, str], *, timeout_seconds: float
) -> HookRan:
    """Run a program to its end, in a session of its own, with nothing to read.

    When its time is over, or the caller is cancelled, its whole process group is asked to end and
    then killed. What it leaves running when it ends by itself stays. Never raises for what the
    program does.
    """
    try:
        # Whoever is cancelled here would not know of what was started.
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                list(command),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                cwd="/",
                env={**ENVIRONMENT, **told},
                start_new_session=True,
            )
    except (OSError, ValueError) as unfit:
        return HookRan(None, False, f"{command[0]}: {unfit}")
    said, heard = bytearray(), anyio.Event()
    timed_out = False
    assert process.stdout is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_listen, process.stdout, said, heard)
        try:
            with anyio.fail_after(timeout_seconds):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
        with anyio.move_on_after(_LAST_WORDS_SECONDS):
            await heard.wait()
        tasks.cancel_scope.cancel()
    with anyio.CancelScope(shield=True):
        await process.aclose()
    return HookRan(process.returncode, timed_out, said.decode("utf-8", "replace").strip())


async def _listen(output: ByteReceiveStream, said: bytearray, heard: anyio.Event) -> None:
    async for piece in output:
        said += piece
        del said[:-SAID_MAX_BYTES]
    heard.set()


async def _end(process: Process) -> None:
    """End a process that has not ended, with its group."""
    if process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    with anyio.move_on_after(ASKED_TO_END_SECONDS):
        await process.wait()
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: Process, which: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, which)
