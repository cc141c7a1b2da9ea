from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import RegistryDamaged, RegistryTooNew
from snapd.model.ids import SnapshotId
from snapd.model.pushes import (
    Push,
    PushName,
    ancestor_line,
    location_digest,
    location_line,
    location_text,
    newest_of_each,
    next_push,
    parse_location,
    render_location,
    revision_line,
    united,
    without_repeats,
)
from tests.unit.model.registering import snapshot

SCHEMAS = Path(__file__).parents[3] / "docs" / "registry"
STORE = "s3://ml/store"
A, B, C = (snapshot(text) for text in "abc")
NOW_MS = 1_772_355_600_123

ids = st.binary(min_size=32, max_size=32).map(lambda raw: SnapshotId(raw.hex()))
optional_ids = st.none() | ids
locations = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
times = st.integers(0, 4_000_000_000_000)
pushes = st.builds(Push, times, locations, ids, optional_ids, optional_ids, st.just("ann@host"))


def push(at_ms: int, snapshot_id: SnapshotId, location: str = STORE, **more: SnapshotId) -> Push:
    return Push(at_ms, location, snapshot_id, by="ann@host", **more)


def test_lines_are_those_of_snapdir_byte_for_byte() -> None:
    first = Push(NOW_MS, 'file:///mnt/ü "x"\n\x7f\\', A, None)
    second = Push(NOW_MS + 877, STORE, B, A)
    assert location_line(first) == (
        f'{{"created_at":"2026-03-01 09:00:00.123","id":"{A}",'
        '"location":"file:///mnt/ü \\"x\\"\\n\x7f\\\\"}'
    )
    assert revision_line(first) == (
        f'{{"created_at":"2026-03-01 09:00:00.123","id":"{A}","previous_id":null}}'
    )
    assert revision_line(second) == (
        f'{{"created_at":"2026-03-01 09:00:01.000","id":"{B}","previous_id":"{A}"}}'
    )
    assert ancestor_line(second) == (
        f'{{"created_at":"2026-03-01 09:00:01.000","id":"{A}","location":"{STORE}"}}'
    )


plain = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)


@given(st.builds(Push, times, plain, ids, optional_ids))
def test_lines_are_what_the_query_of_the_original_tool_gives(push: Push) -> None:
    """It kept its history in SQLite and printed what `json_object` made of a row."""
    row = (push.at_ms / 1000, push.snapshot_id, push.previous_id, push.location)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE history (at, id, previous_id, location)")
        connection.execute("INSERT INTO history VALUES (?, ?, ?, ?)", row)

        def query(*pairs: tuple[str, str]) -> str:
            created_at = "strftime('%Y-%m-%d %H:%M:%f', at, 'unixepoch')"
            keys = ", ".join(f"'{key}', {value}" for key, value in pairs)
            select = f"SELECT json_object('created_at', {created_at}, {keys}) FROM history"
            [(line,)] = connection.execute(select)
            return str(line)

        assert revision_line(push) == query(("id", "id"), ("previous_id", "previous_id"))
        assert location_line(push) == query(("id", "id"), ("location", "location"))
        assert ancestor_line(push) == query(("id", "previous_id"), ("location", "location"))


@given(pushes, st.text("0123456789abcdef", min_size=1, max_size=16))
def test_a_name_tells_all_but_who(push: Push, mark: str) -> None:
    name = PushName.of(push, mark)
    assert PushName.parse(str(name)) == name
    told = name.push(push.location)
    assert told == Push(
        push.at_ms, push.location, push.snapshot_id, push.previous_id, push.parent_id
    )
    assert all(len(part) <= 255 for key in name.keys() for part in key.split("/"))  # noqa: SIM118
    assert all(key.endswith(f"/{name}") for key in name.keys())  # noqa: SIM118


@given(st.lists(times, min_size=2, max_size=20, unique=True))
def test_names_are_newest_first_in_byte_order(moments: list[int]) -> None:
    keys = [PushName.of(push(at_ms, A), "0").keys()[0] for at_ms in moments]
    found = [PushName.parse(key.rpartition("/")[2]) for key in sorted(keys)]
    assert [name.at_ms for name in found if name] == sorted(moments, reverse=True)


@pytest.mark.parametrize(
    "name", ["", "x", "1-2-3", f"{'0' * 14}-{'a' * 16}-{A}-none-none-", "é" * 200]
)
def test_a_name_of_somebody_else_is_none(name: str) -> None:
    assert PushName.parse(name) is None


@given(pushes)
def test_a_document_is_read_as_it_was_written(push: Push) -> None:
    assert Push.parse(push.render()) == push
    schema = json.loads((SCHEMAS / "push.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(push.render()), schema)
    schema = json.loads((SCHEMAS / "location.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(render_location(push.location)), schema)
    assert parse_location(render_location(push.location)) == push.location


@pytest.mark.parametrize(
    "change",
    [
        {"location": ""},
        {"location": "x" * 9000},
        {"location": 3},
        {"location": "\ud800"},
        {"previous_id": "short"},
        {"parent_id": 3},
        {"snapshot_id": None},
        {"at": "yesterday"},
        {"by": "a\nb"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_document_that_breaks_the_rules_is_damaged(change: dict[str, object]) -> None:
    document = json.loads(push(NOW_MS, A).render()) | change
    with pytest.raises(RegistryDamaged):
        Push.parse(json.dumps(document).encode())


def test_a_newer_document_is_told_from_damage() -> None:
    with pytest.raises(RegistryTooNew):
        Push.parse(push(NOW_MS, A).render().replace(b"push/1", b"push/2"))
    with pytest.raises(RegistryTooNew):
        parse_location(render_location(STORE).replace(b"location/1", b"location/2"))


def test_what_is_the_newest_already_is_not_added() -> None:
    first = next_push(None, STORE, A, now_ms=NOW_MS, by="ann", parent_id=A)
    assert first == Push(NOW_MS, STORE, A, None, None, "ann")
    assert next_push(first, STORE, A, now_ms=NOW_MS + 5, by="bob") is None
    second = next_push(first, STORE, B, now_ms=NOW_MS - 1000, by="bob", parent_id=C)
    assert second == Push(NOW_MS + 1, STORE, B, A, C, "bob"), "later than the one before"


def test_records_are_united_newest_first() -> None:
    told, told_here = push(2, B, previous_id=A), push(2, B)
    found = united([told, push(1, A)], [push(3, C, "/data"), told_here])
    assert found == [push(3, C, "/data"), told, push(1, A)]
    assert newest_of_each(found) == [push(3, C, "/data"), told]


def test_what_follows_itself_is_told_once_and_comes_back_later() -> None:
    raw = [push(5, A), push(4, B), push(3, B, "/data"), push(2, B), push(1, A)]
    assert without_repeats([push(6, A), *raw]) == [
        push(5, A),
        push(3, B, "/data"),
        push(2, B),
        push(1, A),
    ]


def test_locations_are_text() -> None:
    assert location_text("/data/\udcff") == "/data/\ufffd"
    assert len(location_digest(STORE)) == 16
