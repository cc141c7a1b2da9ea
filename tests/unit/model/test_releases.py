from __future__ import annotations

import pytest

from snapd.model.releases import Change, changed_since


@pytest.mark.parametrize(
    ("at", "unchanged_at", "now", "since"),
    [
        (100.0, 90.0, 110.0, 100.0),
        (50.0, 90.0, 110.0, 90.0),  # the writer's clock is behind: this node saw the old state
        (500.0, 90.0, 110.0, 110.0),  # or ahead
        (100.0, None, 110.0, 100.0),  # the first look after a start
        (0.0, None, 110.0, 110.0),  # nobody knows
        (100.0, 500.0, 110.0, 110.0),  # this node's own clock was set back
    ],
)
def test_when_it_changed_is_told_within_what_this_node_saw(
    at: float, unchanged_at: float | None, now: float, since: float
) -> None:
    assert changed_since(Change(at), unchanged_at, now) == since
