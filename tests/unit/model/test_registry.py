"""Documents are read strictly, and agree with the schemas that are published."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from snapd.model.datasets import Dataset
from snapd.model.errors import (
    ClockBehind,
    InvalidName,
    RegistryDamaged,
    RegistryFull,
    RegistryTooNew,
)
from snapd.model.model_history import KEPT_EVENTS_MAX, HistoryPage
from snapd.model.models import Model
from snapd.model.receipts import parse_moment
from snapd.model.registry import CLOCK_BEHIND_MAX_SECONDS, Author, render_document
from snapd.model.stages import NewVersion, add, deprecate, move, new_model, roll_back, set_alias
from tests.unit.model.registering import AT, author, model_with, snapshot, v

SCHEMAS = Path(__file__).parents[3] / "docs" / "registry"
PARSERS: dict[str, Callable[[bytes], object]] = {
    "dataset": Dataset.parse,
    "model": Model.parse,
    "model-history": HistoryPage.parse,
}


@cache
def validator(kind: str) -> Any:
    schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    checks = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(schema, format_checker=checks)


def full_dataset() -> Dataset:
    dataset = Dataset("imagenet").add(v(1), snapshot("1"), author("the first"))
    dataset = dataset.add(v(2), snapshot("2"), author())
    return dataset.deprecate(v(1), author("mislabelled"))


def full_model() -> Model:
    new = NewVersion(
        snapshot("n"),
        run="run-7",
        metrics={"accuracy": 0.93, "epochs": 3},
        parameters={"lr": 0.1, "optimizer": "adam", "augment": True},
        card="# Iris\n\nFor flowers.",
        aliases=("champion",),
    )
    model = add(model_with(3, produced=[1, 2]), v(9), new, author("better"))
    model = roll_back(model, None, author("worse"))
    return deprecate(set_alias(model, "old", v(1), author()), v(3), author("never used"))


def long_model() -> Model:
    model = model_with(2)
    for number in range(KEPT_EVENTS_MAX):
        model = move(model, v(1 + number % 2), "staging" if number % 3 else "dev", author())
        model = set_alias(model, "best", v(1 + number % 2), author())
    return model


def spilled() -> tuple[HistoryPage, Model]:
    split = long_model().spill()
    assert split is not None
    return split


DOCUMENTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "dataset": ("dataset", lambda: full_dataset().render()),
    "empty dataset": ("dataset", lambda: Dataset("a").render()),
    "model": ("model", lambda: full_model().render()),
    "empty model": ("model", lambda: new_model("a").render()),
    "model with pages": ("model", lambda: spilled()[1].render()),
    "page": ("model-history", lambda: spilled()[0].render()),
}


@pytest.mark.parametrize("which", DOCUMENTS)
def test_a_document_is_read_as_it_was_written_and_keeps_its_schema(which: str) -> None:
    kind, made = DOCUMENTS[which]
    data = made()
    parsed = PARSERS[kind](data)
    assert isinstance(parsed, (Dataset, Model, HistoryPage))
    assert parsed.render() == data
    validator(kind).validate(json.loads(data))


FREE = ("metrics", "parameters", "aliases")
"""Objects whose keys are names that people chose."""
OPTIONAL = {"note", "run", *FREE, "card", "produced", "alias", "withdrawn", "deprecated"}


def objects(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every object in a document with the key that holds it; of a list the first two."""
    if isinstance(value, dict):
        yield name, value
        for key, below in value.items():
            yield from objects(below, key)
    elif isinstance(value, list):
        for below in value[:2]:
            yield from objects(below, name)


def broken(document: dict[str, Any]) -> Iterator[str]:
    """Break the document in one way after another, in place; say how."""
    for name, found in [*objects(document)]:
        if name not in FREE[:2]:
            found["unheard-of key!"] = 1
            yield f"a key more in {name!r}"
            del found["unheard-of key!"]
        for key, value in [*found.items()]:
            if name not in FREE:
                found[key] = [[]] if isinstance(value, dict) else {"no": "such"}
                yield f"{key} in {name!r} is another kind"
            if name not in FREE and (not name or name == "events" or key not in OPTIONAL):
                del found[key]
                yield f"no {key} in {name!r}"
            found[key] = value


@pytest.mark.parametrize("which", DOCUMENTS)
def test_a_document_with_anything_out_of_place_is_refused_by_reader_and_schema(which: str) -> None:
    kind, made = DOCUMENTS[which]
    whole = made()
    document = json.loads(whole)
    ways = 0
    for way in broken(document):
        ways += 1
        with pytest.raises(RegistryDamaged):
            PARSERS[kind](json.dumps(document).encode())
        assert not validator(kind).is_valid(document), way
    assert ways >= 4
    assert document == json.loads(whole)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"schema": NaN}',
        b'{"schema": "snapsync.dataset/0", "name": "a", "versions": []}',
        b'{"schema": "snapsync.other/2", "name": "a", "versions": []}',
        b'{"name": "a", "versions": [{"version": "v1.0.0", "stage": "production"}]}',
    ],
    ids=lambda data: repr(data)[:30],
)
@pytest.mark.parametrize("kind", PARSERS)
def test_what_is_no_document_is_called_damaged(kind: str, data: bytes) -> None:
    with pytest.raises(RegistryDamaged):
        PARSERS[kind](data)


@pytest.mark.parametrize("which", ["dataset", "model", "page"])
def test_a_newer_schema_is_told_from_damage(which: str) -> None:
    kind, made = DOCUMENTS[which]
    newer = made().replace(b'/1"', b'/12"', 1)
    with pytest.raises(RegistryTooNew, match="/12"):
        PARSERS[kind](newer)


def test_a_document_has_an_end() -> None:
    with pytest.raises(RegistryFull, match="may have 100"):
        render_document({"name": "x" * 100}, bytes_max=100)


def test_the_author_is_checked() -> None:
    assert Author.checked(" ann ", AT, "t", "why").by == "ann"
    with pytest.raises(InvalidName):
        Author.checked("a\nb", AT, "t")
    with pytest.raises(InvalidName):
        Author.checked("ann", AT, "t", "\x1b")


@pytest.mark.parametrize("behind", [0.0, 1.5, CLOCK_BEHIND_MAX_SECONDS])
def test_a_clock_that_is_a_little_behind_gives_the_time_of_the_last_change(behind: float) -> None:
    assert parse_moment(author(at=AT - behind).time_after(AT)) == AT
    assert parse_moment(author(at=AT + behind).time_after(AT)) == AT + behind


def test_a_clock_that_is_far_behind_does_not_write() -> None:
    late = author(at=AT - CLOCK_BEHIND_MAX_SECONDS - 60)
    with pytest.raises(ClockBehind) as refused:
        add(model_with(1), v(2), NewVersion(snapshot("2")), late)
    assert refused.value.details["behind_seconds"] == CLOCK_BEHIND_MAX_SECONDS + 60
    with pytest.raises(ClockBehind):
        full_dataset().add(v(3), snapshot("3"), late)
