from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import ManifestRefused
from snapd.model.json_stream import VALUE_MAX_CHARACTERS, JsonStream

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


def pieces_of(text: str, size: int) -> Callable[[int], str]:
    """Read a text in pieces that are smaller than what was asked for."""
    file = StringIO(text)
    return lambda _size: file.read(size)


def read_all(text: str, size: int, containers: tuple[str, ...] = ()) -> Any:
    stream = JsonStream(pieces_of(text, size))
    kind = stream.peek()
    found = []
    for key, value in stream.members(containers):
        found.append((key, list(value) if isinstance(value, Iterator) else value))
    stream.end()
    return [value for _, value in found] if kind == "[" else dict(found)


@given(
    document=st.lists(VALUES, max_size=5) | st.dictionaries(st.text(max_size=5), VALUES),
    size=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
)
def test_what_it_reads_is_what_json_reads_however_it_arrives(
    document: Any, size: int, indent: int | None
) -> None:
    text = json.dumps(document, indent=indent, allow_nan=False)
    assert read_all(f" {text}\n", size) == json.loads(text)


def test_members_of_a_container_come_one_by_one() -> None:
    text = '{"n": 1, "files": [1, {"a": 2}], "m": {"files": [3]}, "files2": []}'
    assert read_all(text, 1, ("files",)) == {
        "n": 1,
        "files": [(None, 1), (None, {"a": 2})],
        "m": {"files": [3]},
        "files2": [],
    }
    assert read_all('{"files": {"a": 1}}', 3, ("files",)) == {"files": [("a", 1)]}
    assert read_all('{"files": 7}', 3, ("files",)) == {"files": 7}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2", "missing"),
        ("[1 2]", "missing"),
        ("[1,]", "Expecting value"),
        ('{"a" 1}', "':' is missing"),
        ("{a: 1}", "a key is missing"),
        ("[1] x", "more after its end"),
        ("[NaN]", "NaN is no value"),
        ('[{"a": 1, "a": 2}]', "twice"),
        ("[" * 100_000, "recursion"),
        (f"[{'9' * 10_000}]", "digits"),
        (f'["{"x" * (VALUE_MAX_CHARACTERS + 200_000)}"]', "more than"),
    ],
)
def test_anything_else_is_refused(text: str, why: str) -> None:
    with pytest.raises(ManifestRefused, match=why):
        read_all(text, 64 * 1024)
