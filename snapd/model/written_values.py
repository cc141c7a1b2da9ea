"""Single values as people write them into a run: texts like numbers, words for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from snapd.model.datasets import nearest
from snapd.model.errors import InvalidName, UsageError
from snapd.model.facts import plain_facts
from snapd.model.names import shown

NOTHING = ("", "~", "null", "Null", "NULL")
"""Texts that stand for no value, as in YAML."""


def text_of(value: object, where: str) -> str | None:
    """Read one line of text, which may look like a number; None if nothing is there."""
    if value is None or (isinstance(value, str) and value in NOTHING):
        return None
    if isinstance(value, (bool, Mapping, list)):
        raise UsageError(f"{where} is no text")
    return str(value)


def text_or_none(value: object) -> str | None:
    """Tell the text that stands there; None for nothing, and for anything else."""
    if value is None or isinstance(value, (Mapping, list)):
        return None
    return None if str(value) in NOTHING else str(value)


def facts_of(value: object, where: str) -> dict[str, Any]:
    """Make a mapping of what JSON can carry: dates as text, and NaN and infinities as words."""
    if value is None or (isinstance(value, str) and value in NOTHING):
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is no mapping of names to values")
    return plain_facts(value, where)


def flag_of(value: object, where: str) -> bool | None:
    """Read yes or no; None if nothing is there."""
    if isinstance(value, bool):
        return value
    text = text_of(value, where)
    if text is None:
        return None
    words = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() not in words:
        raise UsageError(f"{where} is neither true nor false: {shown(text)}")
    return words[text.lower()]


def number_of(value: object, where: str) -> int | None:
    """Read a whole number from 0 on; None if nothing is there."""
    text = text_of(value, where)
    if text is None:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise UsageError(f"{where} is no whole number: {shown(text)}")
    return int(text)


def spelled(values: Mapping[Any, Any], spellings: Mapping[str, str], where: str) -> dict[str, Any]:
    """Bring the names of fields to one spelling; raises `UsageError` for two of one."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = spellings.get(str(key), str(key))
        if name in found:
            raise UsageError(f"{where} has {shown(name)} twice, as {shown(str(key))} too")
        found[name] = value
    return found


def refuse_rest(left: Mapping[str, Any], known: tuple[str, ...], where: str) -> NoReturn:
    """Raise `InvalidName` for a field that is not understood, naming the nearest that is."""
    name = min(left)
    near = nearest(name, known)
    said = f" (did you mean {near[0]}?)" if near else ""
    raise InvalidName(
        f"{where} has a field {shown(name)}, which is not known{said}",
        hint="Further facts go into params, metrics or env.",
    )
