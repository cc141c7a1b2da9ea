from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from snapd.registry.beginning import beginning


@pytest.mark.parametrize(
    ("limit", "expected"), [(2, ([0, 1], True)), (3, ([0, 1, 2], False)), (9, ([0, 1, 2], False))]
)
async def test_a_walk_is_cut_and_ended(limit: int, expected: tuple[list[int], bool]) -> None:
    ended = []

    async def walk() -> AsyncGenerator[int, None]:
        try:
            for number in range(3):
                yield number
        finally:
            ended.append(True)

    assert await beginning(walk(), limit) == expected
    assert ended == [True]
