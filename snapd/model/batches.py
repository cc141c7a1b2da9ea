"""Group many small things into batches that are bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def in_batches(
    items: Iterable[T], size_bytes_of: Callable[[T], int], *, objects_max: int, bytes_max: int
) -> Iterator[list[T]]:
    """Cut `items`, in their order, into batches of one item at least.

    A batch has at most `objects_max` items, and at most `bytes_max` bytes unless it is a single
    item that is larger. Takes items only as they are needed.
    """
    batch: list[T] = []
    size_bytes = 0
    for item in items:
        more = size_bytes_of(item)
        if batch and (len(batch) >= objects_max or size_bytes + more > bytes_max):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += more
    if batch:
        yield batch
