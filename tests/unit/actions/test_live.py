from __future__ import annotations

import threading

import anyio
import pytest

from snapd.actions import live
from snapd.actions.live import Places
from snapd.model.errors import TimedOut


async def test_a_destination_that_hangs_keeps_nobody_and_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "PLACE_MAX_SECONDS", 0.02)
    monkeypatch.setattr(live, "PLACES_HANGING_MAX", 2)
    places, answers = Places(), threading.Event()
    began: list[int] = []

    def hang() -> None:
        began.append(1)
        assert answers.wait(20)

    try:
        for dest in ("/a", "/a", "/b", "/c"):
            with pytest.raises(TimedOut):
                await places.look(dest, hang)
        assert len(began) == 2, "one thread each, and so many at most"
    finally:
        answers.set()
    monkeypatch.setattr(live, "PLACE_MAX_SECONDS", 20.0)
    with anyio.fail_after(60):
        while True:
            try:
                assert await places.look("/a", lambda: 7) == 7
                break
            except TimedOut:
                await anyio.sleep(0.005)


async def test_who_is_cancelled_waits_for_what_is_being_done() -> None:
    places, answers = Places(), threading.Event()
    done: list[int] = []

    def act() -> None:
        anyio.from_thread.run_sync(scope.cancel)
        assert answers.wait(20)
        done.append(1)

    async def answer() -> None:
        await anyio.wait_all_tasks_blocked()
        answers.set()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(places.look, "/a", act)
            with anyio.CancelScope(shield=True):
                await answer()
    assert scope.cancel_called
    assert done == [1]
