from __future__ import annotations

from typing import Any

import pytest

from snapd.model.errors import InvalidName
from snapd.model.facts import DEPTH_MAX, KEY_MAX_CHARACTERS, VALUE_MAX_CHARACTERS, check_facts


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


def test_plain_values_are_fit() -> None:
    values = {"a": 1, "b": [True, None, 0.5, "x\n\ty", {}], "c": {"d": [[]]}}
    assert check_facts(values, "parameters") == values
    assert check_facts({"a": nested(7)}, "parameters")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({" ": 1}, "empty"),
        ({1: 1}, "no text"),
        ({"a\nb": 1}, "empty or no text"),
        ({"a": {"\x1b": 1}}, "U\\+001B"),
        ({"x" * (KEY_MAX_CHARACTERS + 1): 1}, "at most"),
        ({"a": "x" * (VALUE_MAX_CHARACTERS + 1)}, "at most"),
        ({"a": ["\x00"]}, "U\\+0000"),
        ({"a": float("nan")}, "float"),
        ({"a": {1, 2}}, "set"),
        ({"a": nested(DEPTH_MAX)}, "deep"),
        ({"a": nested(100_000)}, "deep"),
        ({"a": [0] * 20_000}, "more than"),
    ],
    ids=lambda each: repr(each)[:30] if isinstance(each, str) else "",
)
def test_what_is_unfit_is_named(values: dict[Any, Any], said: str) -> None:
    with pytest.raises(InvalidName, match=said):
        check_facts(values, "parameters")
