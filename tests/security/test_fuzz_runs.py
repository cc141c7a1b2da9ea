"""Records of runs that somebody edited or wrote by hand: read as they are, or refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import RegistryUnreadable, SnapsyncError
from snapd.model.run_texts import read_run_text, render_yaml
from snapd.model.runs import Run
from snapd.model.secrecy import mask_arguments, without_credentials
from snapd.model.written_runs import run_as_written
from tests.security.test_fuzz_readers import JSON, bounded
from tests.security.test_fuzz_registry import edited
from tests.unit.model.registering import author, snapshot
from tests.unit.model.test_runs import full_run

SIMPLE: dict[str, Any] = {
    "run_id": "iris-7",
    "code_commit": "9f3c",
    "data_snapshot": [snapshot("a"), {"id": snapshot("b"), "path": "x"}],
    "params": {"lr": 0.1, "layers": [1]},
    "env": {"python": "3.11"},
    "outputs": {"model": snapshot("c")},
    "metrics": {"accuracy": 0.9},
    "command": ["python", "train.py"],
    "started_at": "2026-03-01T09:00:00Z",
}
FIELDS = (*SIMPLE, "code", "data", "environment", "seed", "exit_status", "by", "note", "dirty")


def read_and_record(document: object) -> None:
    try:
        run = run_as_written(document).run("r1", author())
    except SnapsyncError as refused:
        json.dumps(refused.to_json())
        return
    assert Run.parse(run.render()) == run
    assert run_as_written(run.to_json()).run("r1", author()).differences(run) in ([], ["note"])


@bounded
@given(data=st.data())
def test_an_edited_record(data: st.DataObject) -> None:
    raw = json.dumps(edited(full_run().to_json(), data.draw)).encode()
    try:
        parsed = Run.parse(raw)
    except RegistryUnreadable as refused:
        json.dumps(refused.to_json())
        return
    assert Run.parse(parsed.render()) == parsed


@pytest.mark.parametrize("document", [SIMPLE, full_run().to_json()], ids=["simple", "full"])
@bounded
@given(data=st.data())
def test_an_edited_description(document: dict[str, Any], data: st.DataObject) -> None:
    read_and_record(edited(document, data.draw))


@bounded
@given(JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_anything_as_a_description(document: object) -> None:
    read_and_record(document)
    if isinstance(document, dict):
        try:
            read_and_record(read_run_text(render_yaml(document).encode()))
        except SnapsyncError as refused:
            json.dumps(refused.to_json())


@bounded
@given(st.lists(st.text("-=:/@ \t\npasword.tken€\x00\udc80", max_size=12), max_size=5))
def test_any_command_line_is_masked_word_by_word(words: list[str]) -> None:
    masked = mask_arguments(words, ["password"])
    assert len(masked) == len(words)
    for word in words:
        without_credentials(word)
