"""Documents of the registry that somebody edited: read as they are, or refused in words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.datasets import Dataset
from snapd.model.errors import RegistryUnreadable, SnapsyncError
from snapd.model.model_history import HistoryPage
from snapd.model.models import Model
from snapd.model.pushes import Push
from snapd.model.references import parse_id_or_reference
from snapd.model.stages import move, roll_back
from tests.security.test_fuzz_readers import JSON, bounded
from tests.unit.model.registering import author, snapshot, v
from tests.unit.model.test_registry import full_dataset, full_model, spilled

VALUES = (
    JSON
    | st.text(st.characters(codec=None, categories=["Cs", "Cc", "Lu"]), max_size=3)
    | st.integers()
    | st.sampled_from(
        ["9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+23:59", "v1.0.0", "dev"]
    )
)
PUSH = Push(1_772_355_600_123, "s3://b", snapshot("a"), snapshot("b"), None, "ann@host")
DOCUMENTS: dict[str, tuple[Callable[[bytes], Any], Any]] = {
    "dataset": (Dataset.parse, full_dataset().to_json()),
    "model": (Model.parse, full_model().to_json()),
    "page": (HistoryPage.parse, json.loads(spilled()[0].render())),
    "push": (Push.parse, json.loads(PUSH.render())),
}


def edited(document: Any, draw: Callable[[Any], Any]) -> Any:
    """Put a value somewhere into a copy of the document."""
    whole = copy.deepcopy(document)
    at = whole
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys))
        if isinstance(at[key], (dict, list)) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        at[key] = draw(VALUES)
        return whole


@pytest.mark.parametrize("kind", DOCUMENTS)
@bounded
@given(data=st.data())
def test_an_edited_document(kind: str, data: st.DataObject) -> None:
    parse, document = DOCUMENTS[kind]
    raw = json.dumps(edited(document, data.draw)).encode()
    try:
        parsed = parse(raw)
    except RegistryUnreadable as refused:
        json.dumps(refused.to_json())
        return
    assert parse(parsed.render()) == parsed
    if isinstance(parsed, Model):
        changes: tuple[Callable[[], Model], ...] = (
            lambda: roll_back(parsed, None, author()),
            lambda: move(parsed, v(1), "production", author()),
        )
        for change in changes:
            try:
                changed = change()
            except SnapsyncError as error:
                json.dumps(error.to_json())
            else:
                assert Model.parse(changed.render()) == changed


@pytest.mark.parametrize("kind", DOCUMENTS)
@bounded
@given(raw=st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_as_a_document(kind: str, raw: bytes) -> None:
    with pytest.raises(RegistryUnreadable):
        DOCUMENTS[kind][0](raw)


@bounded
@given(st.text("@:./v0-prod\x00é", max_size=30))
def test_anything_as_a_reference(text: str) -> None:
    try:
        found = parse_id_or_reference(text)
    except SnapsyncError as error:
        json.dumps(error.to_json())
    else:
        assert parse_id_or_reference(str(found)) == found
