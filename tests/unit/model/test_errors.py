from __future__ import annotations

import json

import pytest

from snapd.model.errors import (
    EXIT_CODE_MEANINGS,
    ExitCode,
    ManifestRefused,
    NoSpace,
    SnapsyncError,
    error_from_json,
)


def tree(root: type[SnapsyncError] = SnapsyncError) -> list[type[SnapsyncError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in tree(child))]


def test_every_exit_code_has_a_meaning() -> None:
    assert set(EXIT_CODE_MEANINGS) == set(ExitCode)
    assert len(set(EXIT_CODE_MEANINGS.values())) == len(ExitCode)


def test_a_code_names_one_kind_of_error() -> None:
    codes = [kind.code for kind in tree() if "code" in vars(kind)]
    assert len(codes) - len(set(codes)) == 1  # the root's and that of its nameless kind


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_an_error_says_what_to_do_and_survives_the_wire(kind: type[SnapsyncError]) -> None:
    error = kind("something about /x", key="a/b", size_bytes=3)
    document = json.loads(json.dumps(error.to_json()))
    again = error_from_json(document)
    assert document["exit_code"] == kind.exit_code != ExitCode.DONE
    assert document["hint"]
    assert (again.code, again.exit_code, again.retryable) == (
        kind.code,
        kind.exit_code,
        kind.retryable,
    )
    assert (again.message, again.hint, again.details) == (error.message, error.hint, error.details)
    assert str(error) == "something about /x"


def test_a_hint_of_its_own_replaces_that_of_the_class() -> None:
    assert NoSpace("full").hint == NoSpace.default_hint
    assert NoSpace("full", hint="Remove /x.").hint == "Remove /x."
    assert NoSpace("full", hint="").hint == ""


def test_details_are_absent_when_there_are_none() -> None:
    assert "details" not in ManifestRefused("no").to_json()


@pytest.mark.parametrize(
    "document",
    [
        {"code": "from_the_future", "message": "m", "hint": "h"},
        {"code": 7, "message": "m", "hint": "h", "details": "none"},
        {"message": "m", "hint": "h"},
    ],
)
def test_an_error_of_an_unknown_kind_keeps_its_words(document: dict[str, object]) -> None:
    error = error_from_json(document)
    assert (type(error), error.message, error.hint) == (SnapsyncError, "m", "h")


def test_an_empty_document_is_still_an_error() -> None:
    error = error_from_json({})
    assert error.message == "unknown error"
    assert error.hint == SnapsyncError.default_hint
