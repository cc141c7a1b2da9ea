from __future__ import annotations

import pytest

from snapd.actions.jobs import SPEED_WINDOW_SECONDS, RetriesOfJobs, Speed
from snapd.model.errors import JobNotFound
from snapd.runtime.log import job_context


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    speed = Speed(clock)
    assert speed.per_second(0) == 0
    for second in range(1, 21):
        clock.now += 1
        told = speed.per_second(min(100 * second, 1000))
        if second <= 10:
            assert told == pytest.approx(100)
    clock.now += 1
    assert speed.per_second(1000) == 0


@pytest.mark.parametrize("pause", [SPEED_WINDOW_SECONDS, 7.0, 600.0])
def test_who_asks_seldom_is_told_of_all_the_time_between(pause: float) -> None:
    clock = Clock()
    speed = Speed(clock)
    clock.now += pause
    assert speed.per_second(1000) == pytest.approx(1000 / pause)
    clock.now += pause
    assert speed.per_second(3000) == pytest.approx(2000 / pause)


def test_speed_is_never_negative() -> None:
    clock = Clock()
    speed = Speed(clock)
    clock.now += 1
    speed.per_second(500)
    clock.now += SPEED_WINDOW_SECONDS
    assert speed.per_second(100) == 0


def test_a_retry_outside_of_any_job_counts_with_none() -> None:
    def find(job_id: str) -> None:
        raise JobNotFound(job_id)

    retries = RetriesOfJobs(find)  # type: ignore[arg-type]
    retries.on_retry("get", "throttled")
    with job_context("gone"):
        retries.on_retry("get", "throttled")
