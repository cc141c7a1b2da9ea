from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from snapd.model.settings import TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.base import Put, Stored
from snapd.remote.directory import DirectoryStore
from snapd.remote.durability import (
    Barrier,
    make_directories,
    sync_all,
    sync_directory,
    syncs_at_once,
)


async def test_a_barrier_is_shared_by_those_who_came_before_it_began() -> None:
    begun = 0
    may_end = anyio.Event()

    async def sync() -> None:
        nonlocal begun
        begun += 1
        await may_end.wait()

    barrier = Barrier(sync)
    async with anyio.create_task_group() as group:
        group.start_soon(barrier.wait)
        await anyio.wait_all_tasks_blocked()
        for _ in range(10):
            group.start_soon(barrier.wait)
        await anyio.wait_all_tasks_blocked()
        assert begun == 1
        may_end.set()
    assert begun == 2


async def test_a_barrier_that_failed_covers_nobody() -> None:
    outcomes = [OSError("disk"), None]

    async def sync() -> None:
        error = outcomes.pop(0)
        if error is not None:
            raise error

    barrier = Barrier(sync)
    with pytest.raises(OSError, match="disk"):
        await barrier.wait()
    await barrier.wait()
    assert not outcomes


def test_directories_are_made_where_they_are_missing(tmp_path: Path) -> None:
    make_directories(f"{tmp_path}/a/b/c")
    make_directories(f"{tmp_path}/a/b/c")
    make_directories(f"{tmp_path}/a/b/d")
    assert sorted(os.listdir(tmp_path / "a/b")) == ["c", "d"]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_directories(f"{tmp_path}/file")


def test_what_is_asked_of_the_file_system(tmp_path: Path) -> None:
    assert not syncs_at_once("/proc")
    sync_all(str(tmp_path))
    sync_directory(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        syncs_at_once(f"{tmp_path}/nothing")


def spy(monkeypatch: pytest.MonkeyPatch, name: str, seen: list[str], say: str) -> None:
    real: Callable[..., None] = getattr(os, name)

    def told(*arguments: object, **named: object) -> None:
        real(*arguments, **named)
        seen.append(say)

    monkeypatch.setattr(os, name, told)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_name_comes_after_its_content_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("snapd.remote.files.file_system_syncs_at_once", lambda path: at_once)
    monkeypatch.setattr("snapd.remote.files.sync_all", lambda path: seen.append("all"))
    spy(monkeypatch, "link", seen, "name")
    spy(monkeypatch, "fsync", seen, "one")
    store = DirectoryStore(
        parse_store_uri(f"file://{tmp_path}/store"), TransferSettings(), threads=1
    )
    puts = [Put(f"t/{n}/x", lambda: b"body", 4) for n in range(3)]
    outcomes = await store.put_batch(puts)
    assert all(isinstance(outcome, Stored) for outcome in outcomes)
    if at_once:
        # The directory in which a new root is made is synced by itself.
        seen.remove("one")
    names = [index for index, each in enumerate(seen) if each == "name"]
    before, after = seen[: names[0]], seen[names[-1] + 1 :]
    assert len(names) == 3
    if at_once:
        assert (before, after) == (["all"], ["all"])
    else:
        assert before.count("one") >= 3
        # Three directories of the keys, the one above them, the root.
        assert after.count("one") == 5


async def test_nothing_staged_is_left_behind(tmp_path: Path) -> None:
    store = DirectoryStore(parse_store_uri(f"file://{tmp_path}/store"), TransferSettings())

    def fail() -> bytes:
        raise ValueError("no bytes")

    puts = [Put("t/good", lambda: b"body", 4), Put("t/bad", fail, 4)]
    good, bad = await store.put_batch(puts)
    assert isinstance(good, Stored)
    assert isinstance(bad, Exception)
    assert os.listdir(tmp_path / "store/.snapsync-tmp") == []
