"""A task group for tasks that serve a block of code and have no life beyond it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


@asynccontextmanager
async def background_tasks() -> AsyncIterator[TaskGroup]:
    """Keep a task group for the length of the block; its tasks are cancelled at the end.

    An error that the block raises comes out as it is, not in an exception group, so that callers
    can name what they expect. An error of a task cancels the block and comes out in a group.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as task_group:
        try:
            yield task_group
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
            failure = error
        task_group.cancel_scope.cancel()
    if failure is not None:
        raise failure
