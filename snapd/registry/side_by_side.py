"""Many small reads at a time, so many as a store answers well."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import anyio

from snapd.model.errors import SnapsyncError

T = TypeVar("T")

READ_AT_ONCE = 16


async def side_by_side(
    reads: Sequence[Callable[[], Coroutine[Any, Any, T]]], *, at_once: int = READ_AT_ONCE
) -> list[T]:
    """Call each and give the results in their order.

    The first `SnapsyncError` that one raises stops the others, and is raised itself.
    """
    done: dict[int, T] = {}
    failures: list[SnapsyncError] = []
    limiter = anyio.CapacityLimiter(at_once)

    async with anyio.create_task_group() as group:

        async def run(index: int) -> None:
            async with limiter:
                try:
                    done[index] = await reads[index]()
                except SnapsyncError as error:
                    failures.append(error)
                    group.cancel_scope.cancel()

        for index in range(len(reads)):
            group.start_soon(run, index)
    if failures:
        raise failures[0]
    return [done[index] for index in range(len(reads))]
