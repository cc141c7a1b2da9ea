from __future__ import annotations

import pytest

from snapctl.naming import Naming
from snapctl.registering import author_of, one_line, read_values
from snapd.model.errors import InvalidReference, UsageError
from snapd.model.versions import parse_version


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert read_values(("a=1", " b =x=y", "c="), "--param") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("pairs", [("a",), ("=1",), (" =1",), ("a=1", "a=2")])
def test_a_pair_needs_a_name_of_its_own(pairs: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--param"):
        read_values(pairs, "--param")


def test_whoever_changes_something_is_named_and_no_two_changes_are_alike() -> None:
    one, other = author_of(None, "why"), author_of("ann", "why")
    assert "@" in one.by
    assert (other.by, other.note) == ("ann", "why")
    assert one.token != other.token
    assert abs(one.at - other.at) < 60


def test_a_note_fits_into_a_line() -> None:
    assert one_line(" a\n\tb  c ") == "a b c"


def test_a_push_gives_the_names_that_it_is_told() -> None:
    naming = Naming.parse("d@1.0.0", "model:m@v2.0.0", "ann", "why")
    assert naming.dataset == ("d", parse_version("v1.0.0"))
    assert naming.given() == {"dataset": "d@v1.0.0", "model": "m@v2.0.0"}
    assert Naming.parse(None, None, None, "").given() == {}


def test_a_push_that_names_nothing_has_no_reason_to_say_why() -> None:
    with pytest.raises(UsageError, match="--note"):
        Naming.parse(None, None, None, "why")
    with pytest.raises(InvalidReference):
        Naming.parse("model:d@v1.0.0", None, None, "")
