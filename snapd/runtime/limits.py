"""What bounds work: a budget of what may be in flight, and a rate at which it may begin."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

BURST_SECONDS = 0.25
"""What was not used for so long may be made up for at once."""

Urgency = Callable[[], int]
"""Read when a place is given away, so that a waiter can become more urgent. Lower goes first."""


@dataclass(slots=True, eq=False)
class _Waiter:
    objects: int
    size_bytes: int
    urgency: Urgency
    admitted: anyio.Event = field(default_factory=anyio.Event)


class Budget:
    """Bounds objects and bytes in flight; waiters go in by urgency, then in order of arrival.

    The most urgent waiter is never overtaken by a smaller one, so large requests do not starve. A
    request for more than the whole budget is admitted when it is alone.
    """

    def __init__(self, *, objects: int, size_bytes: int = 0) -> None:
        self._objects_max = objects
        self._bytes_max = size_bytes
        self._objects = 0
        self._bytes = 0
        self._waiters: list[_Waiter] = []

    @property
    def objects_in_flight(self) -> int:
        """How many objects hold a place now."""
        return self._objects

    @property
    def bytes_in_flight(self) -> int:
        """How many bytes are held now."""
        return self._bytes

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._waiters)

    def resize(self, *, objects: int, size_bytes: int = 0) -> None:
        """Change the bounds; what is in flight stays, waiters are admitted as far as it allows."""
        self._objects_max = objects
        self._bytes_max = size_bytes
        self._admit()

    def position(self, urgency: Urgency) -> int:
        """Tell how many waiters would be admitted up to and including the one of this urgency."""
        ordered = sorted(self._waiters, key=lambda waiter: waiter.urgency())
        for index, waiter in enumerate(ordered, start=1):
            if waiter.urgency == urgency:
                return index
        return 0

    async def acquire(
        self, *, objects: int = 1, size_bytes: int = 0, urgency: Urgency = lambda: 0
    ) -> Reservation:
        """Wait for a place and take it. Cancelled while waiting, nothing is held."""
        waiter = _Waiter(objects, size_bytes, urgency)
        self._waiters.append(waiter)
        self._admit()
        try:
            await waiter.admitted.wait()
        except BaseException:
            if waiter.admitted.is_set():
                self._give_back(objects, size_bytes)
            else:
                self._waiters.remove(waiter)
                self._admit()
            raise
        return Reservation(self, objects, size_bytes)

    @asynccontextmanager
    async def hold(
        self, *, objects: int = 1, size_bytes: int = 0, urgency: Urgency = lambda: 0
    ) -> AsyncIterator[None]:
        """Hold a place for the length of the block."""
        reservation = await self.acquire(objects=objects, size_bytes=size_bytes, urgency=urgency)
        try:
            yield
        finally:
            reservation.release()

    def _fits(self, waiter: _Waiter) -> bool:
        if self._objects == 0 and self._bytes == 0:
            return True
        return (
            self._objects + waiter.objects <= self._objects_max
            and self._bytes + waiter.size_bytes <= self._bytes_max
        )

    def _admit(self) -> None:
        while self._waiters:
            waiter = min(self._waiters, key=lambda candidate: candidate.urgency())
            if not self._fits(waiter):
                return
            self._waiters.remove(waiter)
            self._objects += waiter.objects
            self._bytes += waiter.size_bytes
            waiter.admitted.set()

    def _give_back(self, objects: int, size_bytes: int) -> None:
        self._objects -= objects
        self._bytes -= size_bytes
        self._admit()


class Reservation:
    """A place in a budget; `release` gives it back, once however often it is called."""

    __slots__ = ("_budget", "_objects", "_size_bytes")

    def __init__(self, budget: Budget, objects: int, size_bytes: int) -> None:
        self._budget: Budget | None = budget
        self._objects = objects
        self._size_bytes = size_bytes

    def release(self) -> None:
        """Give the place back."""
        if self._budget is not None:
            budget, self._budget = self._budget, None
            budget._give_back(self._objects, self._size_bytes)  # noqa: SLF001 - its other half


class Rate:
    """Lets so many units pass in a second, in the order of asking; 0 lets everything pass.

    An amount passes whole once those before it have been paid for, so it may be of any size: the
    next one waits the longer.
    """

    def __init__(
        self,
        per_second: float,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._per_second = per_second
        self._now = now
        self._sleep = sleep
        self._paid_until = now()

    async def take(self, amount: float) -> None:
        """Wait until `amount` units may pass. Cancelled while waiting, they count as passed."""
        if not self._per_second:
            return
        now = self._now()
        begins_at = max(self._paid_until, now - BURST_SECONDS)
        self._paid_until = begins_at + amount / self._per_second
        if begins_at > now:
            await self._sleep(begins_at - now)
