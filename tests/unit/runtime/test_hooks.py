from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from snapd.disk.processes import may_live
from snapd.model.leases import ProcessMark
from snapd.runtime import hooks
from snapd.runtime.hooks import SAID_MAX_BYTES, run_hook


async def test_a_hook_is_told_and_heard_and_gets_nothing_else() -> None:
    ran = await run_hook(
        ["/bin/sh", "-c", 'echo "$SNAPSYNC_ID $1"; env | cut -d= -f1 | sort; pwd >&2', "x", "arg"],
        {"SNAPSYNC_ID": "abc"},
        timeout_seconds=20,
    )
    assert (ran.status, ran.timed_out) == (0, False)
    lines = ran.said.splitlines()
    assert lines[0] == "abc arg"
    assert set(lines[1:]) == {"HOME", "LANG", "PATH", "SNAPSYNC_ID", "PWD", "/"}


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", -9), ("read x", 1)])
async def test_how_it_ended_is_told(script: str, status: int) -> None:
    ran = await run_hook(["/bin/sh", "-c", script], {}, timeout_seconds=20)
    assert (ran.status, ran.timed_out) == (status, False)


async def test_what_can_not_be_started_is_told() -> None:
    ran = await run_hook(["/no/such/program"], {}, timeout_seconds=20)
    assert (ran.status, ran.timed_out) == (None, False)
    assert "/no/such/program" in ran.said


async def test_only_the_end_of_what_it_says_is_kept() -> None:
    ran = await run_hook(
        ["/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo end"],
        {},
        timeout_seconds=20,
    )
    assert ran.said.endswith("xend")
    assert len(ran.said) <= SAID_MAX_BYTES


def alive(pid_file: Path) -> bool:
    pid = int(pid_file.read_text())
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and may_live(ProcessMark(pid)) is not False


async def test_one_that_takes_too_long_is_killed_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "ASKED_TO_END_SECONDS", 0.1)
    child = tmp_path / "child"
    ran = await run_hook(
        ["/bin/sh", "-c", f"trap '' TERM; sleep 600 & echo $! >{child}; wait; sleep 600"],
        {},
        timeout_seconds=1.0,
    )
    assert ran.timed_out
    assert ran.status == -9
    with anyio.fail_after(60):
        while alive(child):  # noqa: ASYNC110 - it is nobody's child any more
            await anyio.sleep(0.01)


async def test_whoever_is_cancelled_leaves_no_hook(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    async with anyio.create_task_group() as tasks:
        script = f"echo $$ >{mine}.new; mv {mine}.new {mine}; exec sleep 600"
        tasks.start_soon(lambda: run_hook(["/bin/sh", "-c", script], {}, timeout_seconds=600))
        with anyio.fail_after(60):
            while not os.access(mine, os.F_OK):  # noqa: ASYNC110 - another process makes it
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(60):
        while alive(mine):  # noqa: ASYNC110 - that it is reaped has no event
            await anyio.sleep(0.01)


async def test_what_it_leaves_running_keeps_nobody(tmp_path: Path) -> None:
    ran = await run_hook(["/bin/sh", "-c", "sleep 600 & echo $!"], {}, timeout_seconds=60)
    assert ran.status == 0
    pid = int(ran.said)
    os.kill(pid, 9)
