from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import pytest

from snapd.model.errors import InvalidName, UsageError
from snapd.model.facts import (
    DEPTH_MAX,
    KEY_MAX_CHARACTERS,
    VALUE_MAX_CHARACTERS,
    VALUES_MAX,
    check_facts,
    plain_facts,
)


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


def test_what_yaml_gives_becomes_what_json_carries() -> None:
    given = {7: (date(2026, 3, 1), datetime(2026, 3, 1, tzinfo=UTC)), True: {None: -math.inf}}
    assert plain_facts(given, "parameters") == {
        "7": ["2026-03-01", "2026-03-01T00:00:00+00:00"],
        "true": {"none": "-Infinity"},
    }


def test_what_stands_for_too_much_is_refused_before_it_is_made() -> None:
    value: list[Any] = [1]
    for _ in range(DEPTH_MAX - 2):
        value = [value] * 8
    with pytest.raises(UsageError, match=f"more than {VALUES_MAX}"):
        plain_facts({"a": value}, "parameters")


def test_what_is_nested_too_deep_for_our_own_stack_is_refused() -> None:
    with pytest.raises(UsageError, match=f"more than {DEPTH_MAX} deep"):
        plain_facts({"a": nested(100_000)}, "parameters")
    with pytest.raises(UsageError, match="deep"):
        plain_facts({"a": nested(DEPTH_MAX)}, "parameters")
