from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import UsageError
from snapd.model.models import Model
from snapd.model.receipts import parse_moment
from snapd.model.stage_history import Then, parse_time, stood_then
from snapd.model.stages import (
    NewVersion,
    add,
    deprecate,
    move,
    new_model,
    roll_back,
    set_alias,
)
from tests.unit.model.registering import AT, author, snapshot, v

HOUR = 3600.0


def history() -> list[Model]:
    """One hour after another something happened to the model; each state of it."""
    clock = iter(range(100))

    def states() -> Iterator[Model]:
        model = new_model("iris_clf")
        for number in (1, 2, 3):
            model = add(model, v(number), NewVersion(snapshot(str(number))), author(at=now()))
            yield model
        model = move(model, v(1), "production", author("go", at=now()))
        yield model
        model = set_alias(model, "champion", v(1), author(at=now()))
        yield model
        model = move(model, v(2), "production", author("better", at=now()))
        yield model
        model = set_alias(model, "champion", v(2), author(at=now()))
        yield model
        model = roll_back(model, None, author("accuracy fell", at=now()))
        yield model
        model = deprecate(model, v(2), author(at=now()))
        yield model
        model = move(model, v(1), "archived", author("retired", at=now()))
        yield model

    def now() -> float:
        return AT + HOUR * next(clock)

    return list(states())


STATES = history()
LAST = STATES[-1]


def then(at: float, selector: str = "production", *, is_alias: bool = False) -> Then:
    return stood_then(reversed(LAST.history), selector, at, is_alias=is_alias)


@pytest.mark.parametrize("hour", range(len(STATES)))
@pytest.mark.parametrize("after", [0.0, 1800.0])
def test_every_past_state_is_told_from_the_history_alone(hour: int, after: float) -> None:
    state = STATES[hour]
    for stage in state.stages:
        stood = then(AT + HOUR * hour + after, stage).stood
        assert {each.version for each in stood} == {
            each.version for each in state.versions if each.stage == stage
        }
    stood = then(AT + HOUR * hour + after, "champion", is_alias=True).stood
    expected = state.aliases.get("champion")
    assert [each.version for each in stood] == ([expected] if expected else [])


def test_who_put_it_there_and_who_took_it_away() -> None:
    [stood] = then(AT + 5.5 * HOUR).stood
    assert (stood.version, stood.since.note) == ("v2.0.0", "better")
    assert stood.until
    assert stood.until.note == "accuracy fell"
    [stood] = then(AT + 8 * HOUR).stood
    assert (stood.version, stood.since.action) == ("v1.0.0", "rollback")
    assert stood.until
    assert stood.until.note == "retired"
    assert then(AT + 100 * HOUR).stood == ()
    [stood] = then(AT + 100 * HOUR, "champion", is_alias=True).stood
    assert stood.until is None


def test_before_the_first_event_there_was_nothing() -> None:
    found = then(AT - 1)
    assert found.stood == ()
    assert found.first
    assert found.first.number == 1
    assert stood_then([], "production", AT, is_alias=False) == Then((), None)


def test_of_several_what_came_last_is_first() -> None:
    assert [each.version for each in then(AT + 2.5 * HOUR, "dev").stood] == [
        "v3.0.0",
        "v2.0.0",
        "v1.0.0",
    ]


@pytest.mark.parametrize(
    ("text", "moment", "has_zone"),
    [
        ("2026-03-01", "2026-03-01T00:00:00Z", False),
        ("2026-03-01 09:00", "2026-03-01T09:00:00Z", False),
        ("2026-03-01T09:00:00Z", "2026-03-01T09:00:00Z", True),
        (" 2026-03-01T09:00:00.250+01:00 ", "2026-03-01T08:00:00.250Z", True),
    ],
)
def test_times_are_read(text: str, moment: str, has_zone: bool) -> None:
    assert parse_time(text) == (parse_moment(moment), has_zone)


@given(st.text(max_size=40))
def test_what_is_no_time_is_refused(text: str) -> None:
    with suppress(UsageError):
        assert isinstance(parse_time(text)[0], float)


@pytest.mark.parametrize("text", ["", "now", "2026-13-01", "0001-01-01T00:00:00+23:59", "x" * 500])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_time(text)
