"""The words of the contract that hold code."""

from __future__ import annotations

from snapd.model.errors import InternalError, NoSpace
from snapd.remote.base import item_error


def test_an_error_of_ours_is_the_outcome_itself() -> None:
    error = NoSpace("/cache: full")
    assert item_error(error, "t/a") is error


def test_any_other_error_is_a_defect_that_names_its_key_and_cause() -> None:
    raised = ValueError("bad value")
    error = item_error(raised, "t/a")
    assert isinstance(error, InternalError)
    assert error.message == "t/a: ValueError: bad value"
    assert error.__cause__ is raised
