"""Free values of a run, such as parameters and metrics: JSON of bounded size and depth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

from snapd.model.errors import InvalidName, UsageError
from snapd.model.names import parse_text, shown
from snapd.model.registry import is_finite_number

VALUES_MAX = 10_000
"""In one mapping, with all that is below."""
VALUE_MAX_CHARACTERS = 16 * 1024
KEY_MAX_CHARACTERS = 256
DEPTH_MAX = 16


def check_facts(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check values that a document is to hold; raises `InvalidName` saying where it is unfit."""
    left = VALUES_MAX
    waiting: list[tuple[Any, str, int]] = [(dict(values), where, 0)]
    while waiting:
        value, at, depth = waiting.pop()
        left -= 1
        if left < 0:
            raise InvalidName(
                f"{where} has more than {VALUES_MAX} values",
                hint="Put them into a file of an output, and record that.",
            )
        if depth > DEPTH_MAX:
            raise InvalidName(f"{shown(at)} is nested more than {DEPTH_MAX} deep")
        if isinstance(value, dict):
            for key, below in value.items():
                _check_key(key, at)
                waiting.append((below, f"{at}.{key}", depth + 1))
        elif isinstance(value, list):
            waiting += [(below, f"{at}[]", depth + 1) for below in value]
        else:
            _check_value(value, at)
    return dict(values)


def plain_facts(values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Make of what YAML may give what JSON can carry; raises `UsageError` if there is too much.

    Names become texts, dates texts, and NaN and the infinities words.
    """
    left = [VALUES_MAX]
    return {_name(key): _plain(below, where, left, 1) for key, below in values.items()}


def _plain(value: Any, where: str, left: list[int], depth: int) -> Any:
    left[0] -= 1
    if depth > DEPTH_MAX:
        raise UsageError(f"{where} is nested more than {DEPTH_MAX} deep")
    if left[0] < 0:
        # A few lines of YAML may stand for more values than memory holds.
        raise UsageError(
            f"{where} has more than {VALUES_MAX} values",
            hint="Put them into a file of an output, and record that.",
        )
    if isinstance(value, Mapping):
        return {_name(key): _plain(below, where, left, depth + 1) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(below, where, left, depth + 1) for below in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.isoformat() if isinstance(value, date) else value


def _name(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) or key is None else str(key)


def _check_value(value: Any, at: str) -> None:
    if isinstance(value, str):
        parse_text(value, shown(at), characters_max=VALUE_MAX_CHARACTERS)
    elif value is not None and not isinstance(value, bool) and not is_finite_number(value):
        raise InvalidName(
            f"{shown(at)} is a {type(value).__name__} that JSON can't carry",
            hint="Numbers, texts, true, false and null, and lists and mappings of them.",
        )


def _check_key(key: object, at: str) -> None:
    if not isinstance(key, str) or not key.strip() or "\n" in key:
        raise InvalidName(
            f"a name in {shown(at)} is empty or no text", hint="Names are one line of text."
        )
    parse_text(key, f"a name in {shown(at)}", characters_max=KEY_MAX_CHARACTERS)
