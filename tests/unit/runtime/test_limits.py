from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from snapd.runtime.limits import BURST_SECONDS, Budget, Rate


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_bounds_objects_and_bytes() -> None:
    budget = Budget(objects=3, size_bytes=100)
    first = await budget.acquire(objects=2, size_bytes=60)
    assert (budget.objects_in_flight, budget.bytes_in_flight) == (2, 60)
    async with anyio.create_task_group() as tasks:
        admitted: list[str] = []

        async def take(name: str, objects: int, size_bytes: int) -> None:
            async with budget.hold(objects=objects, size_bytes=size_bytes):
                admitted.append(name)

        tasks.start_soon(take, "too many bytes", 1, 41)
        await settle()
        tasks.start_soon(take, "fits, but came later", 1, 1)
        await settle()
        assert admitted == []
        assert budget.waiting == 2
        first.release()
        await settle()
        assert admitted == ["too many bytes", "fits, but came later"]
    assert (budget.objects_in_flight, budget.bytes_in_flight) == (0, 0)


async def test_urgent_goes_first_and_may_become_urgent_while_waiting() -> None:
    budget = Budget(objects=1)
    held = await budget.acquire()
    urgency = {"late": 1}
    admitted: list[str] = []

    async def take(name: str, urgency_now: int | None = None) -> None:
        def read() -> int:
            return urgency[name] if urgency_now is None else urgency_now

        async with budget.hold(urgency=read):
            admitted.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, "prefetch", 1)
        await settle()
        tasks.start_soon(take, "late")
        await settle()
        tasks.start_soon(take, "blocking", 0)
        await settle()
        urgency["late"] = -1
        held.release()
    assert admitted == ["late", "blocking", "prefetch"]


async def test_larger_than_the_whole_budget_goes_alone() -> None:
    budget = Budget(objects=2, size_bytes=10)
    async with budget.hold(objects=1, size_bytes=1000):
        assert budget.bytes_in_flight == 1000
    assert budget.bytes_in_flight == 0


async def test_a_cancelled_waiter_holds_nothing_and_lets_others_pass() -> None:
    budget = Budget(objects=4, size_bytes=10)
    held = await budget.acquire(size_bytes=5)
    passed = anyio.Event()

    async def take_small() -> None:
        async with budget.hold(size_bytes=5):
            passed.set()

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as inner:
                inner.start_soon(lambda: budget.acquire(size_bytes=9))
                await settle()
                tasks.start_soon(take_small)
                await settle()
                assert not passed.is_set()
                scope.cancel()
        with anyio.fail_after(60):
            await passed.wait()
    held.release()
    assert (budget.objects_in_flight, budget.bytes_in_flight, budget.waiting) == (0, 0, 0)


async def test_a_release_counts_once() -> None:
    budget = Budget(objects=2)
    reservation = await budget.acquire()
    reservation.release()
    reservation.release()
    assert budget.objects_in_flight == 0


async def test_position_counts_the_more_urgent_first() -> None:
    budget = Budget(objects=1)
    await budget.acquire()

    def patient() -> int:
        return 1

    def urgent() -> int:
        return 0

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: budget.acquire(urgency=patient))
        await settle()
        tasks.start_soon(lambda: budget.acquire(urgency=urgent))
        await settle()
        assert (budget.position(urgent), budget.position(patient)) == (1, 2)
        assert budget.position(lambda: 5) == 0
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("objects", [1, 5])
async def test_resize_admits_waiters(objects: int) -> None:
    budget = Budget(objects=0)
    await budget.acquire(objects=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: budget.acquire(objects=1))
        await settle()
        assert budget.waiting == 1
        budget.resize(objects=1 + objects)
    assert budget.objects_in_flight == 2


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_a_rate_lets_amounts_pass_one_after_the_other() -> None:
    clock = Clock()
    rate = Rate(10, now=lambda: clock.now, sleep=clock.sleep)
    passed_at = []
    for amount in (5, 40, 1, 1):
        await rate.take(amount)
        passed_at.append(clock.now - 100)
    assert passed_at == pytest.approx([0, 0.5, 4.5, 4.6])


async def test_what_was_not_used_is_made_up_for_only_a_little() -> None:
    clock = Clock()
    rate = Rate(100, now=lambda: clock.now, sleep=clock.sleep)
    clock.now += 3600
    for _ in range(200):
        await rate.take(1)
    assert clock.now - 3700 == pytest.approx(1.99 - BURST_SECONDS)


async def test_no_rate_lets_everything_pass() -> None:
    clock = Clock()
    rate = Rate(0, now=lambda: clock.now, sleep=clock.sleep)
    await rate.take(10**12)
    await rate.take(10**12)
    assert clock.now == 100
