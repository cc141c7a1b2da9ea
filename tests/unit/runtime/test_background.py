from __future__ import annotations

import anyio
import pytest

from snapd.runtime.background import background_tasks


async def test_tasks_end_with_the_block() -> None:
    ended = anyio.Event()

    async def serve() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with background_tasks() as tasks:
        tasks.start_soon(serve)
        await anyio.lowlevel.checkpoint()
    assert ended.is_set()


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with background_tasks() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            raise LookupError("mine")


async def test_an_error_of_a_task_ends_the_block() -> None:
    async def fail() -> None:
        raise LookupError("its own")

    with pytest.raises(ExceptionGroup):
        async with background_tasks() as tasks:
            tasks.start_soon(fail)
            await anyio.sleep_forever()


async def test_cancelling_the_block_is_no_error() -> None:
    with anyio.CancelScope() as scope:
        async with background_tasks():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
