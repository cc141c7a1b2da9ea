"""Sizes, rates and durations as people write and read them."""

from __future__ import annotations

import re

from snapd.model.errors import UsageError

_SIZE = r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b?)\s*"
_DURATION = r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*"
_FLAGS = re.ASCII | re.IGNORECASE
_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size_bytes(text: str) -> int:
    """`8M` -> 8388608. Multiples of 1024, with or without `i` and `B`; fractions are allowed."""
    match = re.fullmatch(_SIZE, text, _FLAGS)
    if match is None:
        raise UsageError(
            f"not a size: {text!r}", hint="Write a number with K, M, G or T: 8M, 1.5G."
        )
    return int(float(match[1]) * 1024 ** _EXPONENTS[match[2].lower()])


def parse_duration_seconds(text: str) -> float:
    """`90` -> 90.0, `5m` -> 300.0, `250ms` -> 0.25."""
    match = re.fullmatch(_DURATION, text, _FLAGS)
    if match is None:
        raise UsageError(f"not a duration: {text!r}", hint="Write 30s, 5m, 2h or 250ms.")
    return float(match[1]) * _SECONDS[match[2].lower()]


def format_size(size_bytes: float) -> str:
    """123456789 -> `117.7 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def format_duration(seconds: float) -> str:
    """75.3 -> `1m15s`, 0.42 -> `0.4s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{left:02d}s"
