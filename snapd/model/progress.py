"""How far all running pulls are, taken together, and whether one of them has got stuck."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from snapd.model.jobs import JobView


class Parts(NamedTuple):
    """What became of the bytes, or of the objects, of some snapshots; the sum is all of them."""

    cached: int = 0
    fetched: int = 0
    left: int = 0


def bytes_of(views: Iterable[JobView]) -> Parts:
    """Add up the bytes of pulls; one that has no plan yet counts nothing."""
    return _sum((view.bytes_cached, view.bytes_fetched, view.bytes_total) for view in views)


def objects_of(views: Iterable[JobView]) -> Parts:
    """Add up the objects of pulls; one that has no plan yet counts nothing."""
    return _sum((view.objects_cached, view.objects_fetched, view.objects_total) for view in views)


def _sum(counts: Iterable[tuple[int, int, int]]) -> Parts:
    sums = Parts()
    for cached, fetched, total in counts:
        left = max(0, total - cached - fetched)
        sums = Parts(sums.cached + cached, sums.fetched + fetched, sums.left + left)
    return sums


def seconds_left(bytes_to_fetch: int, bytes_fetched: int, bytes_per_second: float) -> float | None:
    """Guess how long a pull still fetches; None if nothing comes at the moment.

    What is fetched again counts twice for a while, so that there may be more than was to come.
    """
    if bytes_per_second <= 0:
        return None
    return max(0, bytes_to_fetch - bytes_fetched) / bytes_per_second


class Stalls:
    """Notices who gets no further: neither a byte, nor an object, nor a step."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[tuple[str, int, int], float]] = {}

    def longest_seconds(self, views: Iterable[JobView], now: float) -> float:
        """Tell how long the pull that has stood still longest has done so; 0 without any.

        `views` are all pulls at work at the moment `now`, on a clock that never jumps. It is as
        exact as it is asked often.
        """
        seen: dict[str, tuple[tuple[str, int, int], float]] = {}
        for view in views:
            mark = (view.state, view.objects_fetched, view.bytes_fetched)
            former, since = self._seen.get(view.job_id, (None, now))
            seen[view.job_id] = (mark, since if former == mark else now)
        self._seen = seen
        return max((now - since for _, since in seen.values()), default=0.0)
