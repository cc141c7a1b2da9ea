from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.pace import DOUBLINGS_TRIED, HOLD_WINDOWS, Pace, Window


@dataclass
class Store:
    """Answers after a latency, up to so many requests a second; more only wait longer."""

    latency_seconds: float
    capacity: float

    def window(self, limit: int, *, throttled: int = 0) -> Window:
        rate = min(limit / self.latency_seconds, self.capacity)
        return Window(1.0, round(rate), 0, limit / rate, throttled)


def run(pace: Pace, store: Store, windows: int) -> list[int]:
    return [pace.judge(store.window(pace.limit)) for _ in range(windows)]


def test_it_grows_at_once_to_what_covers_a_latency() -> None:
    pace = Pace(start=64, ceiling=512)
    assert run(pace, Store(latency_seconds=0.02, capacity=1e6), 4) == [128, 256, 512, 512]


def test_it_stays_where_more_in_flight_moves_no_more() -> None:
    pace = Pace(start=64, ceiling=512)
    limits = run(pace, Store(latency_seconds=0.001, capacity=10_000), 200)
    assert set(limits[1:]) <= {64, 80, 128}
    assert limits.count(128) <= DOUBLINGS_TRIED + 1
    assert limits.count(80) <= 200 / HOLD_WINDOWS + 1


@pytest.mark.parametrize(
    ("latency_seconds", "limit"), [(0.0001, 32), (0.005, 50), (0.02, 200), (0.3, 256)]
)
def test_it_begins_with_what_the_first_latency_asks_for(latency_seconds: float, limit: int) -> None:
    pace = Pace(start=64, ceiling=512)
    pace.begin(latency_seconds)
    assert pace.limit == limit


def test_what_is_asked_for_stays_below_the_ceiling() -> None:
    pace = Pace(start=64, ceiling=100)
    pace.begin(0.02)
    assert pace.limit == 100


def test_it_shrinks_to_what_the_latency_needs_if_requests_wait_for_the_node_itself() -> None:
    pace = Pace(start=64, ceiling=512)
    pace.begin(0.02)
    limits = run(pace, Store(latency_seconds=0.02, capacity=2000), HOLD_WINDOWS)
    assert limits[:3] == [100, 50, 32]
    assert set(limits[3:]) == {50}


def test_a_first_answer_that_came_faster_than_all_others_does_not_keep_it_from_growing() -> None:
    pace = Pace(start=64, ceiling=512)
    pace.begin(0.004)
    limits = run(pace, Store(latency_seconds=0.05, capacity=1e6), 6)
    assert limits == [32, 40, 80, 160, 320, 512]


def test_one_misfortune_does_not_keep_it_from_growing() -> None:
    pace = Pace(start=64, ceiling=512)
    store = Store(latency_seconds=0.02, capacity=1e6)
    pace.judge(store.window(64))
    assert pace.judge(Store(latency_seconds=0.2, capacity=1e6).window(128)) == 64
    assert run(pace, store, 10)[-1] == 512


def test_it_does_not_go_below_half_of_where_it_shall_begin() -> None:
    pace = Pace(start=64, ceiling=512)
    pace.begin(0.005)
    assert min(run(pace, Store(latency_seconds=0.0001, capacity=1000), HOLD_WINDOWS)) == 32


def test_it_settles_a_little_above_what_a_slow_store_can_do() -> None:
    pace = Pace(start=16, ceiling=512)
    run(pace, Store(latency_seconds=0.1, capacity=1000), 300)
    assert 64 <= pace.limit <= 144


def test_it_halves_when_the_store_is_busy_and_comes_back_step_by_step() -> None:
    store = Store(latency_seconds=0.02, capacity=1e6)
    pace = Pace(start=256, ceiling=256)
    assert pace.judge(store.window(256, throttled=3)) == 128
    assert pace.judge(store.window(128, throttled=1)) == 64
    assert run(pace, store, HOLD_WINDOWS) == [64] * HOLD_WINDOWS
    assert run(pace, store, 12)[-1] == 256


def test_it_shrinks_when_a_store_has_become_slower_by_itself() -> None:
    pace = Pace(start=64, ceiling=64)
    run(pace, Store(latency_seconds=0.02, capacity=1e6), 5)
    assert pace.judge(Store(latency_seconds=0.2, capacity=1e6).window(64)) == 48


def test_it_learns_nothing_while_nobody_waits() -> None:
    pace = Pace(start=64, ceiling=512)
    idle = Window(1.0, 5, 5, 0.02, crowded=False)
    assert [pace.judge(idle) for _ in range(10)] == [64] * 10


@pytest.mark.parametrize(("start", "ceiling", "limit"), [(64, 6, 6), (1, 512, 8), (64, 1, 1)])
def test_where_it_begins(start: int, ceiling: int, limit: int) -> None:
    assert Pace(start=start, ceiling=ceiling).limit == limit


WINDOWS = st.builds(
    Window,
    seconds=st.floats(0.01, 10),
    requests=st.integers(1, 10_000),
    size_bytes=st.integers(0, 10**10),
    latency_seconds=st.floats(0, 100),
    throttled=st.integers(0, 2),
    crowded=st.booleans(),
)


@given(st.integers(1, 600), st.integers(1, 600), st.floats(0, 10), st.lists(WINDOWS, max_size=60))
def test_it_never_leaves_its_bounds(
    start: int, ceiling: int, first_seconds: float, windows: list[Window]
) -> None:
    pace = Pace(start=start, ceiling=ceiling)
    if first_seconds:
        pace.begin(first_seconds)
    for window in windows:
        assert min(8, ceiling) <= pace.judge(window) <= ceiling
