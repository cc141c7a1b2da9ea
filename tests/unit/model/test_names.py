from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import InvalidName
from snapd.model.names import (
    NAME_MAX_CHARACTERS,
    is_name,
    parse_author,
    parse_name,
    parse_text,
    parse_word,
    shown,
)
from snapd.model.uris import parse_store_uri
from snapd.remote.files import StoreFiles

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/a",
    "a\\b",
    ".hidden",
    "-rf",
    "_x",
    "a b",
    "a\nb",
    "a\n",
    "a\x00b",
    "a\x1b[31m",
    "a@b",
    "a:b",
    "a%2e",
    "naïve",
    "a\u202eb",
    "\uff21",
    "x" * (NAME_MAX_CHARACTERS + 1),
    "x" * 10_000,
    "0123456789abcdef" * 4,
    "0123456789ABCDEF" * 4,
]


@pytest.mark.parametrize("text", ["imagenet", "iris_clf", "a", "0", "A.b-c_D", "x" * 128])
def test_a_plain_name_is_taken_as_it_is(text: str) -> None:
    assert parse_name(text) == text
    assert is_name(text)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_a_hostile_name_is_refused_in_one_short_line(text: str) -> None:
    assert not is_name(text)
    with pytest.raises(InvalidName) as refused:
        parse_name(text)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 200
    assert refused.value.hint


@given(st.text(max_size=200))
def test_what_is_accepted_is_one_path_segment(text: str) -> None:
    if is_name(text):
        key = f"registry/datasets/{parse_name(text)}"
        assert StoreFiles(parse_store_uri("file:///s")).path(key) == f"/s/{key}"
        assert key.count("/") == 2
        assert "@" not in text


@pytest.mark.parametrize("text", ["production", "champion", "a-b_c2", "vnext"])
def test_a_word_is_a_stage_or_an_alias(text: str) -> None:
    assert parse_word(text, "an alias") == text


@pytest.mark.parametrize("text", ["", "v1", "v1.2.0", "1", "Prod", "a b", "a.b", "x" * 65, "a\n"])
def test_what_looks_like_a_version_is_no_word(text: str) -> None:
    with pytest.raises(InvalidName, match="not an alias"):
        parse_word(text, "an alias")


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\x00", "x" * 257])
def test_who_did_it_is_one_line(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_author(text)
    assert parse_author(" Jürgen <j@example.org> ") == "Jürgen <j@example.org>"


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\x1b[2J", r"U\+001B"), ("a\x00", r"U\+0000"), ("a\r", r"U\+000D"), ("x" * 1025, "1025")],
)
def test_a_note_has_no_control_characters_and_an_end(text: str, said: str) -> None:
    with pytest.raises(InvalidName, match=said):
        parse_text(text, "a note")


def test_a_note_may_have_lines() -> None:
    assert parse_text("one\n\ttwo … drei", "a note") == "one\n\ttwo … drei"


@given(st.text())
def test_what_is_shown_is_short_and_printable(text: str) -> None:
    check: Callable[[str], str] = shown
    assert check(text).isprintable()
    assert len(check(text)) < 800
