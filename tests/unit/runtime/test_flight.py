from __future__ import annotations

import logging

import anyio
import pytest

from snapd.model.errors import InternalError, JobCancelled, NoSpace, Stalled
from snapd.runtime.flight import Flight, Flights


async def test_all_waiters_learn_of_the_end_and_the_key_is_free_again() -> None:
    heard: list[str] = []
    async with anyio.create_task_group() as keeper:
        flights: Flights[str] = Flights(keeper)
        flight = Flight(["a", "b"], on_end=lambda _: heard.append("owner"))
        flight.join(lambda _: heard.append("first"))
        flight.join(lambda _: heard.append("second"))

        async def work() -> None:
            assert flights.running("a") is flight
            flight.failures["b"] = NoSpace("full")

        flights.launch(flight, work)
        await flight.ended.wait()
        assert heard[0] == "owner"
        assert sorted(heard[1:]) == ["first", "second"]
        assert "a" not in flight.failures
        assert isinstance(flight.failures["b"], NoSpace)
        assert flights.running("a") is None
        assert len(flights) == 0


async def test_the_first_caller_leaving_does_not_end_it_the_last_one_does() -> None:
    async with anyio.create_task_group() as keeper:
        flights: Flights[str] = Flights(keeper)
        flight: Flight[str] = Flight(["a"])
        first, second = flight.join(), flight.join()
        stopped = anyio.Event()

        async def work() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                stopped.set()

        flights.launch(flight, work)
        await anyio.lowlevel.checkpoint()
        first.leave()
        first.leave()
        assert flight.waiters == 1
        assert not stopped.is_set()
        second.leave()
        with anyio.fail_after(60):
            await flight.ended.wait()
        assert stopped.is_set()
        assert isinstance(flight.failures["a"], JobCancelled)


async def test_a_cancelled_caller_only_leaves() -> None:
    """The first caller's cancellation must not hang or fail the followers."""
    async with anyio.create_task_group() as keeper:
        flights: Flights[str] = Flights(keeper)
        flight: Flight[str] = Flight(["a"])
        go_on = anyio.Event()
        follower_done = anyio.Event()

        async def wait_for_it() -> None:
            ticket = flight.join()
            try:
                await flight.ended.wait()
                follower_done.set()
            finally:
                ticket.leave()

        with anyio.CancelScope() as first_caller:
            async with anyio.create_task_group() as callers:
                callers.start_soon(wait_for_it)
                await anyio.lowlevel.checkpoint()
                keeper.start_soon(wait_for_it)
                await anyio.lowlevel.checkpoint()
                flights.launch(flight, go_on.wait)
                assert flight.waiters == 2
                first_caller.cancel()
        assert flight.waiters == 1
        go_on.set()
        with anyio.fail_after(60):
            await follower_done.wait()
        assert flight.failures == {}


async def test_an_error_counts_for_every_key_without_one_of_its_own() -> None:
    async with anyio.create_task_group() as keeper:
        flights: Flights[str] = Flights(keeper)
        flight: Flight[str] = Flight(["a", "b"])
        flight.join()

        async def work() -> None:
            flight.failures["a"] = NoSpace("full")
            raise Stalled("silence")

        flights.launch(flight, work)
        await flight.ended.wait()
        assert isinstance(flight.failures["a"], NoSpace)
        assert isinstance(flight.failures["b"], Stalled)


async def test_a_defect_ends_the_flight_and_not_its_keeper(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with anyio.create_task_group() as keeper:
        flights: Flights[str] = Flights(keeper)
        flight: Flight[str] = Flight(["a"])
        flight.join()

        async def work() -> None:
            raise ZeroDivisionError

        with caplog.at_level(logging.ERROR):
            flights.launch(flight, work)
            await flight.ended.wait()
        assert isinstance(flight.failures["a"], InternalError)
        assert "ZeroDivisionError" in caplog.text
