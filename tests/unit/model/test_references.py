from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import InvalidId, InvalidName, InvalidReference, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.references import (
    Reference,
    Resolved,
    parse_id_or_reference,
    parse_name_or_reference,
    parse_reference,
    parse_version_reference,
)
from snapd.model.versions import parse_version

ID = SnapshotId("5c" * 32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imagenet@v1.2.0", Reference("imagenet", parse_version("v1.2.0"))),
        ("imagenet@1.2.0", Reference("imagenet", parse_version("v1.2.0"))),
        (" iris_clf@production\n", Reference("iris_clf", "production")),
        ("model:iris_clf@champion", Reference("iris_clf", "champion", "model")),
        ("dataset:a@v1.0.0-rc.1", Reference("a", parse_version("1.0.0-rc.1"), "dataset")),
    ],
)
def test_a_reference_says_a_name_and_which_version(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_id_or_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize("text", [ID, f" {ID.upper()} "])
def test_what_has_no_at_is_an_id(text: str) -> None:
    assert parse_id_or_reference(text) == ID


@pytest.mark.parametrize("text", ["", "imagenet", "v1.2.0", ID[:-1], "x" * 10_000])
def test_what_is_neither_is_told_about_both(text: str) -> None:
    with pytest.raises(InvalidId) as neither:
        parse_id_or_reference(text)
    assert "NAME@v1.2.0" in neither.value.hint


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("imagenet", InvalidReference),
        ("imagenet@", InvalidReference),
        ("@", InvalidReference),
        ("@v1.2.0", InvalidName),
        ("../x@v1.2.0", InvalidName),
        ("a/b@v1.2.0", InvalidName),
        ("a\x00@v1.2.0", InvalidName),
        ("a@v1.2", InvalidName),
        ("a@v1.2.0@v1.3.0", InvalidName),
        ("a@Prod", InvalidName),
        ("a@prod\x1b[0m", InvalidName),
        ("file:a@v1.2.0", InvalidReference),
        (f"{ID}@v1.0.0", InvalidName),
        ("x" * 10_000 + "@v1.0.0", InvalidReference),
        ("x" * 200 + "@v1.0.0", InvalidName),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_is_no_reference_is_refused(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as refused:
        parse_reference(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@given(st.text(alphabet=st.characters(), max_size=80))
def test_whatever_is_typed_is_understood_or_refused_as_usage(text: str) -> None:
    try:
        found = parse_id_or_reference(text)
    except UsageError:
        return
    assert parse_id_or_reference(str(found)) == found


def test_a_change_needs_a_version_of_its_kind() -> None:
    assert parse_version_reference("a@1.0.0", "dataset") == ("a", parse_version("v1.0.0"))
    with pytest.raises(InvalidReference, match="names no version"):
        parse_version_reference("a@production", "model")
    with pytest.raises(InvalidReference, match="is no model"):
        parse_version_reference("dataset:a@1.0.0", "model")


def test_a_name_alone_means_all_of_it() -> None:
    assert parse_name_or_reference("a", "model") == "a"
    assert parse_name_or_reference("model:a", "model") == "a"
    assert parse_name_or_reference("a@production", "model") == Reference("a", "production")
    with pytest.raises(InvalidReference, match="is no model"):
        parse_name_or_reference("dataset:a@1.0.0", "model")
    with pytest.raises(InvalidName):
        parse_name_or_reference("dataset:a", "model")


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("a@production", f"a@production is v1.0.0, {ID}"),
        ("a@v1.0.0", f"a@v1.0.0 is {ID}"),
    ],
)
def test_where_it_led_is_said_in_a_line(reference: str, line: str) -> None:
    assert Resolved(reference, "model", "a", "v1.0.0", ID).line() == line
