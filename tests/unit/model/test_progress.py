from __future__ import annotations

from typing import Any

from snapd.model.jobs import JobView
from snapd.model.progress import Parts, Stalls, bytes_of, objects_of, seconds_left


def view(job_id: str = "j", state: Any = "fetching", **counts: Any) -> JobView:
    return JobView(job_id, "id", "s3://b", state, **counts)


def test_parts_add_up_over_all_pulls() -> None:
    views = [
        view(bytes_total=100, bytes_cached=30, bytes_fetched=20, objects_total=4, objects_cached=1),
        view(bytes_total=7, bytes_fetched=7, objects_total=1, objects_fetched=1),
        view(state="reading_manifest"),
    ]
    assert bytes_of(views) == Parts(cached=30, fetched=27, left=50)
    assert objects_of(views) == Parts(cached=1, fetched=1, left=3)
    assert bytes_of([]) == Parts(0, 0, 0)


def test_more_than_was_planned_leaves_nothing_to_do() -> None:
    """A large object that is fetched again counts twice for a moment."""
    assert bytes_of([view(bytes_total=10, bytes_fetched=14)]).left == 0


def test_no_time_is_left_and_never_less() -> None:
    assert seconds_left(100, 40, 30.0) == 2
    assert seconds_left(100, 140, 30.0) == 0
    assert seconds_left(100, 40, 0) is None


def test_who_gets_no_further_is_noticed() -> None:
    stalls = Stalls()
    assert stalls.longest_seconds([view("a"), view("b")], 100.0) == 0
    assert stalls.longest_seconds([view("a"), view("b", bytes_fetched=1)], 110.0) == 10
    assert stalls.longest_seconds([view("a"), view("b", bytes_fetched=1)], 130.0) == 30
    assert stalls.longest_seconds([view("b", bytes_fetched=1)], 131.0) == 21
    assert stalls.longest_seconds([view("b", "publishing", bytes_fetched=1)], 140.0) == 0
    assert stalls.longest_seconds([], 150.0) == 0


def test_a_pull_that_comes_back_has_not_stood_still() -> None:
    stalls = Stalls()
    stalls.longest_seconds([view("a")], 100.0)
    stalls.longest_seconds([], 110.0)
    assert stalls.longest_seconds([view("a")], 200.0) == 0
