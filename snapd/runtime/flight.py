"""Single flights: one running piece of work, shared by all who wait for any of its keys.

A flight belongs to the task group of whoever keeps the `Flights`, not to its first caller: a caller
that is cancelled only leaves, and the flight goes on for the others. It ends with its last waiter.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from snapd.model.errors import InternalError, JobCancelled, SnapsyncError

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Flight(Generic[K]):
    """One running piece of work under one or more keys.

    `failures` holds what went wrong, by key; a key that is not in it when the flight has ended
    succeeded. It is complete once `ended` is set.
    """

    def __init__(
        self, keys: Iterable[K], *, on_end: Callable[[Flight[K]], None] = lambda _flight: None
    ) -> None:
        self.keys = frozenset(keys)
        self._on_end = on_end
        self.failures: dict[K, SnapsyncError] = {}
        self.ended = anyio.Event()
        self._tickets: set[Ticket[K]] = set()
        self._scope = anyio.CancelScope()
        self._because: SnapsyncError | None = None

    @property
    def waiters(self) -> int:
        """How many wait for this flight now."""
        return len(self._tickets)

    @property
    def cancelled(self) -> bool:
        """Tell whether it was told to end; who joins now will see `JobCancelled`."""
        return self._scope.cancel_called

    def join(self, on_end: Callable[[Flight[K]], None] = lambda _flight: None) -> Ticket[K]:
        """Become a waiter. `on_end` is called on the event loop when the flight has ended."""
        ticket = Ticket(self, on_end)
        self._tickets.add(ticket)
        return ticket

    def cancel(self, because: SnapsyncError | None = None) -> None:
        """End the flight for everybody; a key that is not done fails, with `JobCancelled` if bare.

        Only the first reason counts.
        """
        if not self._scope.cancel_called:
            self._because = because
        self._scope.cancel()

    def _leave(self, ticket: Ticket[K]) -> None:
        self._tickets.discard(ticket)
        if not self._tickets and not self.ended.is_set():
            self._scope.cancel()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        with self._scope:
            await work()
        if self._scope.cancelled_caught:
            self.fail(self._because or JobCancelled("the work was cancelled"))

    def fail(self, error: SnapsyncError) -> None:
        """Let every key that has no failure of its own yet fail with this error."""
        for key in self.keys:
            self.failures.setdefault(key, error)

    def _end(self) -> None:
        self.ended.set()
        self._on_end(self)
        tickets, self._tickets = self._tickets, set()
        for ticket in tickets:
            ticket.on_end(self)


class Ticket(Generic[K]):
    """One waiter's share in a flight."""

    def __init__(self, flight: Flight[K], on_end: Callable[[Flight[K]], None]) -> None:
        self.flight = flight
        self.on_end = on_end

    def leave(self) -> None:
        """Stop waiting; the last one to leave a running flight cancels it."""
        self.flight._leave(self)  # noqa: SLF001 - its other half


class Flights(Generic[K]):
    """All running flights of one kind, by key."""

    def __init__(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._running: dict[K, Flight[K]] = {}

    def __len__(self) -> int:
        return len(set(map(id, self._running.values())))

    def running(self, key: K) -> Flight[K] | None:
        """Find the flight that works on a key."""
        return self._running.get(key)

    def launch(self, flight: Flight[K], work: Callable[[], Awaitable[None]]) -> None:
        """Start `work` in the keeper's task group under all keys of the flight.

        `work` writes failures of single keys into the flight; an error that it raises counts for
        every key, and a defect (any other exception) is logged and ends this flight only, not its
        keeper. The caller has joined before. No key may be running already.
        """
        assert not any(key in self._running for key in flight.keys)
        for key in flight.keys:
            self._running[key] = flight
        self._task_group.start_soon(self._fly, flight, work)

    async def _fly(self, flight: Flight[K], work: Callable[[], Awaitable[None]]) -> None:
        try:
            await flight._run(work)  # noqa: SLF001 - its other half
        except SnapsyncError as error:
            flight.fail(error)
        except Exception as defect:
            logger.exception("a flight met a defect")
            flight.fail(InternalError(f"{type(defect).__name__}: {defect}"))
        finally:
            for key in flight.keys:
                del self._running[key]
            flight._end()  # noqa: SLF001 - its other half
