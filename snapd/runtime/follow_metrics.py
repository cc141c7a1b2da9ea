"""What Prometheus is told of what a node follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from snapd.model.follow_views import FollowView

_Number: TypeAlias = tuple[str, str, Callable[[FollowView], float]]

_LABELS = ("follow", "ref")
_GAUGES: tuple[_Number, ...] = (
    (
        "snapd_follow_live_timestamp_seconds",
        "Since when the version is live on this node; 0 if none is.",
        lambda view: view.live_since or 0.0,
    ),
    (
        "snapd_follow_behind_seconds",
        "How long the reference has led elsewhere than what is live; 0 if it does not.",
        lambda view: view.behind_seconds,
    ),
    (
        "snapd_follow_checked_timestamp_seconds",
        "When the reference was last looked up with success; before the first time, since when"
        " that has been tried.",
        lambda view: view.checked_at or view.began_at,
    ),
    (
        "snapd_follow_poll_interval_seconds",
        "How often the reference is looked at.",
        lambda view: view.poll_seconds,
    ),
    (
        "snapd_follow_last_error_timestamp_seconds",
        "When something last went wrong; 0 if nothing has.",
        lambda view: view.last_error_at or 0.0,
    ),
)
_COUNTERS: tuple[_Number, ...] = (
    ("snapd_follow_switches", "How often the link was switched.", lambda view: view.switches),
    ("snapd_follow_polls", "How often the reference was looked at.", lambda view: view.polls),
    (
        "snapd_follow_poll_failures",
        "How often the registry could not be read.",
        lambda view: view.poll_failures,
    ),
    (
        "snapd_follow_hook_failures",
        "How often the hook failed or took too long.",
        lambda view: view.hook_failures,
    ),
)


class FollowsCollector(Collector):
    """Gives out the views that it was given last."""

    def __init__(self) -> None:
        self.views: Sequence[FollowView] = ()

    def collect(self) -> Iterator[Metric]:
        """Make one family a number, with a sample for each follow."""
        info = GaugeMetricFamily(
            "snapd_follow_info",
            "Always 1; `version` is what is live, empty if nothing is.",
            labels=[*_LABELS, "version"],
        )
        error = GaugeMetricFamily(
            "snapd_follow_error",
            "1 for what keeps the follow from getting on now, by the error's code.",
            labels=[*_LABELS, "code"],
        )
        for view in self.views:
            info.add_metric([view.follow_id, view.reference, view.version], 1)
            if view.error is not None:
                error.add_metric([view.follow_id, view.reference, str(view.error["code"])], 1)
        yield info
        yield error
        for name, meaning, number in _GAUGES:
            gauge = GaugeMetricFamily(name, meaning, labels=_LABELS)
            for view in self.views:
                gauge.add_metric([view.follow_id, view.reference], number(view))
            yield gauge
        for name, meaning, number in _COUNTERS:
            counter = CounterMetricFamily(name, meaning, labels=_LABELS)
            for view in self.views:
                counter.add_metric([view.follow_id, view.reference], number(view))
            yield counter
