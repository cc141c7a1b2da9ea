"""How large objects share what may be asked for at the same time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from snapd.actions.fetch import Crowd


@pytest.mark.parametrize(
    ("objects", "ranges"), [(0, 8), (1, 8), (2, 8), (3, 5), (4, 4), (8, 2), (40, 2)]
)
def test_each_large_object_gets_fewer_ranges_the_more_there_are(objects: int, ranges: int) -> None:
    crowd = Crowd()
    with ExitStack() as stack:
        for _ in range(objects):
            stack.enter_context(crowd.joined())
        assert crowd.ranges_each == ranges
    assert crowd.objects == 0
