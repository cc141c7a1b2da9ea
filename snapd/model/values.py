"""Values as they are typed: `lr=0.1`, `augment=true`, `optimizer=adam`."""

from __future__ import annotations

import json

from snapd.model.errors import UsageError
from snapd.model.registry import is_finite_number


def read_value(text: str) -> str | float | bool:
    """Read a number, true or false as that and anything else as the text that it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if is_finite_number(value) or isinstance(value, bool) else text


def read_number(where: str, text: str) -> float:
    """Read a number; raises `UsageError` saying where there is none."""
    value = read_value(text)
    if isinstance(value, (str, bool)):
        raise UsageError(f"{where} is no number: {text[:80]!r}")
    return value


def read_seed(text: str) -> int | str:
    """Read a whole number as that and anything else as the text that it is."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and digits.isascii() and len(digits) < 1000 else text
