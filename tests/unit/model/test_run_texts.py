from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import UsageError
from snapd.model.run_texts import read_run_text, render_yaml
from snapd.model.runs import RUN_MAX_BYTES


def test_words_that_look_like_numbers_are_texts_where_they_have_to_be() -> None:
    text = b"code_commit: 0123456\nenv: {python: 3.10}\nparams: {lr: 1.0, on: true}\nseed: 7\n"
    assert read_run_text(text) == {
        "code_commit": "0123456",
        "env": {"python": "3.10"},
        "params": {"lr": 1.0, True: True},
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no mapping"),
        (b"- a", "no mapping"),
        (b"\xff\xfe", "UTF-8"),
        (b"a: [", "neither YAML nor JSON"),
        (b"a: !!python/object/apply:os.system [true]", "neither YAML nor JSON"),
        (b"{" * 100_000, "too deep"),
        (b"[" * 100_000, "too deep"),
        (b"a: " + b"[" * 100_000 + b"]" * 100_000, "too deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep"),
        (b"a: b: c", "neither YAML nor JSON"),
        (b"{[a]: b}", "neither YAML nor JSON"),
        (b"x" * (RUN_MAX_BYTES + 1), "more than"),
    ],
    ids=lambda each: repr(each)[:30],
)
def test_what_is_no_run_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_run_text(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_mapping_or_refused(data: bytes) -> None:
    with suppress(UsageError):
        assert isinstance(read_run_text(data), dict)


TEXT = st.text(st.characters().filter(lambda each: each.isprintable() or each in "\n\t"))
"""What a record may hold; of other characters YAML makes what it likes."""
PLAIN: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT, below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, PLAIN, max_size=4))
def test_what_is_printed_as_yaml_or_json_is_read_again(values: dict[str, Any]) -> None:
    document = {"run_id": "r", "params": json.loads(json.dumps(values))}
    assert read_run_text(render_yaml(document).encode())["params"] == document["params"]
    assert read_run_text(json.dumps(document).encode()) == document
