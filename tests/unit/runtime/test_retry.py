"""Backoff: jitter within its bounds, Retry-After before it, an end by attempts and by time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.settings import TransferSettings
from snapd.runtime.retry import Backoff

BACKOFF = Backoff(base_seconds=0.25, max_seconds=20.0, attempts_max=6, deadline_seconds=100.0)


def almost_one() -> float:
    return 1.0


def half() -> float:
    return 0.5


@pytest.mark.parametrize(
    ("failures", "bound"),
    [(1, 0.25), (2, 0.5), (3, 1.0), (7, 16.0), (8, 20.0), (9, 20.0), (5000, 20.0)],
)
def test_the_bound_doubles_up_to_the_maximum(failures: int, bound: float) -> None:
    delay = BACKOFF.delay_seconds(failures, retry_after_seconds=0.0, random=almost_one)
    assert delay == bound


def test_the_jitter_is_full() -> None:
    assert BACKOFF.delay_seconds(3, retry_after_seconds=0.0, random=lambda: 0.0) == 0.0
    assert BACKOFF.delay_seconds(3, retry_after_seconds=0.0, random=half) == 0.5


def test_retry_after_is_a_lower_bound_and_keeps_the_jitter() -> None:
    assert BACKOFF.delay_seconds(1, retry_after_seconds=7.0, random=lambda: 0.0) == 7.0
    assert BACKOFF.delay_seconds(1, retry_after_seconds=7.0, random=half) == 7.125
    assert BACKOFF.delay_seconds(1, retry_after_seconds=-3.0, random=half) == 0.125


@given(
    failures=st.integers(1, 100),
    retry_after=st.floats(0.0, 1000.0),
    dice=st.floats(0.0, 1.0, exclude_max=True),
)
def test_a_delay_is_never_outside_its_bounds(
    failures: int, retry_after: float, dice: float
) -> None:
    delay = BACKOFF.delay_seconds(failures, retry_after_seconds=retry_after, random=lambda: dice)
    assert retry_after <= delay <= retry_after + 20.0


def test_it_ends_by_attempts() -> None:
    assert BACKOFF.allows(5, elapsed_seconds=0.0, delay_seconds=0.0)
    assert not BACKOFF.allows(6, elapsed_seconds=0.0, delay_seconds=0.0)


def test_it_ends_by_the_deadline_the_pause_included() -> None:
    assert BACKOFF.allows(1, elapsed_seconds=90.0, delay_seconds=10.0)
    assert not BACKOFF.allows(1, elapsed_seconds=90.0, delay_seconds=10.1)


def test_its_bounds_come_from_the_settings() -> None:
    settings = TransferSettings(
        attempts_max=3, backoff_base_seconds=1.0, backoff_max_seconds=2.0, deadline_seconds=9.0
    )
    assert Backoff.of(settings) == Backoff(1.0, 2.0, 3, 9.0)
