from __future__ import annotations

from pathlib import Path

import pytest

from snapctl.own_state import own_state


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/snapsync"),
        ({"XDG_STATE_HOME": "x", "HOME": "/h"}, "/h/.local/state/snapsync"),
        ({"HOME": "/h"}, "/h/.local/state/snapsync"),
        ({"HOME": ""}, None),
        ({}, None),
    ],
)
def test_it_lies_in_the_home_unless_it_is_told(
    environment: dict[str, str], expected: str | None
) -> None:
    assert own_state(environment) == (None if expected is None else Path(expected))
