from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from snapd.model.batches import in_batches


@given(st.lists(st.integers(0, 50)), st.integers(1, 5), st.integers(1, 60))
def test_nothing_is_lost_and_both_bounds_hold(
    sizes: list[int], objects_max: int, bytes_max: int
) -> None:
    batches = list(
        in_batches(sizes, lambda size: size, objects_max=objects_max, bytes_max=bytes_max)
    )
    assert [size for batch in batches for size in batch] == sizes
    for batch in batches:
        assert 1 <= len(batch) <= objects_max
        assert sum(batch) <= bytes_max or len(batch) == 1


def test_items_are_taken_only_as_needed() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    batches = in_batches(endless(), lambda _: 1, objects_max=3, bytes_max=100)
    assert next(batches) == [1, 1, 1]
