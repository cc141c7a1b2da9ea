from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import UsageError
from snapd.model.units import (
    format_duration,
    format_size,
    parse_duration_seconds,
    parse_size_bytes,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("8M", 8 << 20),
        ("8 MiB", 8 << 20),
        ("8mb", 8 << 20),
        ("1.5G", 3 << 29),
        ("2t", 2 << 40),
        ("1P", 1 << 50),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "M", "-1", "1e9", "8 apples", "8MM", "٨M", ".5G"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size_bytes(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("30s", 30.0), ("5m", 300.0), ("1.5 h", 5400.0), ("250ms", 0.25), ("1D", 86400)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 week", "inf", "nan"])
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration_seconds(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (123456789, "117.7 MiB"),
        (1 << 40, "1.0 TiB"),
        (3 << 60, "3072.0 PiB"),
    ],
)
def test_sizes_are_shown(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (0.42, "0.4s"), (75.3, "1m15s"), (3600, "1h00m"), (90061, "25h01m")],
)
def test_durations_are_shown(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 1 << 60))
def test_a_shown_size_is_read_back_nearly_the_same(size_bytes: int) -> None:
    again = parse_size_bytes(format_size(size_bytes))
    assert abs(again - size_bytes) <= 0.06 * size_bytes
