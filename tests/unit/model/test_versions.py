from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import InvalidName
from snapd.model.versions import Version, looks_like_version, parse_version

_numbers = st.integers(0, 999)
_part = st.from_regex(r"(0|[1-9][0-9]{0,3}|[A-Za-z-][0-9A-Za-z-]{0,3})", fullmatch=True)
_parts = st.lists(_part, max_size=3).map(tuple)
versions = st.builds(Version, _numbers, _numbers, _numbers, _parts, _parts)

ORDERED = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.0+build",
    "1.0.10",
    "1.2.0",
    "2.0.0",
    "10.0.0",
]
"""The example of the specification of semantic versioning, and some more."""


@given(versions)
def test_a_version_is_read_as_it_is_written(version: Version) -> None:
    assert parse_version(str(version)) == version
    assert parse_version(str(version).removeprefix("v")) == version
    assert looks_like_version(str(version))


def test_versions_are_ordered_by_precedence() -> None:
    parsed = [parse_version(text) for text in ORDERED]
    assert all(one < other for one, other in pairwise(parsed))
    assert max(parsed) == parsed[-1]


@given(versions, versions)
def test_of_two_different_versions_one_is_lower(one: Version, other: Version) -> None:
    assert (one < other) + (other < one) + (one == other) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v",
        "1",
        "v1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.03",
        "v1.2.3-",
        "v1.2.3-01",
        "v1.2.3-a..b",
        "v1.2.3+",
        "V1.2.3",
        "vv1.2.3",
        " 1.2.3",
        "1.2.3\n",
        "1.-2.3",
        "1.2.\u0663",
        "1.2.3-ä",
        "1.2.3/../..",
        f"1.2.{'3' * 100}",
        "1.2.3-" + "a" * 10_000,
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="not a version"):
        parse_version(text)


@pytest.mark.parametrize("text", [f"1.2.3-{'a' * 58}", f"v1.2.3-{'a' * 58}"])
def test_the_longest_version_can_be_read_again(text: str) -> None:
    assert str(parse_version(str(parse_version(text)))) == f"v{text.removeprefix('v')}"
    with pytest.raises(InvalidName):
        parse_version(f"{text}a")
