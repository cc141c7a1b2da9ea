"""The beginning of a walk that may be longer than anybody wants to hear."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def beginning(walk: AsyncGenerator[T, None], limit: int) -> tuple[list[T], bool]:
    """Take the first items of a walk and end it; tell whether there were more."""
    found: list[T] = []
    async with aclosing(walk) as items:
        async for item in items:
            if len(found) == limit:
                return found, True
            found.append(item)
    return found, False
