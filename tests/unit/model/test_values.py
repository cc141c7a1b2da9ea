from __future__ import annotations

import pytest

from snapd.model.errors import UsageError
from snapd.model.values import read_number, read_seed, read_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1", 0.1),
        ("3", 3),
        ("true", True),
        ("adam", "adam"),
        ("NaN", "NaN"),
        ("[1]", "[1]"),
        ("null", "null"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=lambda each: repr(each)[:20],
)
def test_a_value_is_what_it_looks_like(text: str, expected: object) -> None:
    assert read_value(text) == expected


@pytest.mark.parametrize("text", ["a", "true", "NaN", ""])
def test_a_number_is_a_number(text: str) -> None:
    assert read_number("--metric a", "1e-3") == 0.001
    with pytest.raises(UsageError, match="--metric a is no number"):
        read_number("--metric a", text)


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7), ("-7", -7), ("0x1", "0x1"), ("²", "²"), ("1" * 5000,) * 2]
)
def test_a_seed_is_a_whole_number_or_a_text(text: str, expected: object) -> None:
    assert read_seed(text) == expected
