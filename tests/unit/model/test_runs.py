"""Records of runs are read strictly, keep their schema, and hold what was written or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from snapd.model.errors import InvalidName, RegistryDamaged, RegistryFull, RegistryTooNew
from snapd.model.facts import DEPTH_MAX, VALUES_MAX
from snapd.model.run_parts import Code, Environment, Use
from snapd.model.runs import (
    ARGUMENTS_MAX,
    USES_MAX,
    Run,
    author_of_run,
    new_run_id,
    render_link,
    time_in_run_id,
)
from tests.unit.model.registering import AT, author, snapshot

SCHEMAS = Path(__file__).parents[3] / "docs" / "registry"
WHEN = "2026-03-01T09:00:00.000Z"


@cache
def validator(kind: str) -> Any:
    schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    checks = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(schema, format_checker=checks)


def bare_run(**more: Any) -> Run:
    return Run("r1", WHEN, "ann@host", "c1", **more)


def full_run() -> Run:
    return bare_run(
        note="first\ntry",
        code=Code("0123abc", dirty=False, repository="https://git/x", untracked=0, directory="."),
        data=(Use(snapshot("d"), "imagenet@v1.2.0", "/trees/d", "s3://datasets/x"),),
        outputs=(Use(snapshot("o"), path="out/model"), Use(snapshot("p"))),
        parameters={"lr": 0.1, "layers": [1, 2, [3]], "augment": True, "none": None},
        metrics={"accuracy": 0.93, "epochs": 3, "loss": "NaN"},
        environment=Environment(
            "3.11.9", "uv.lock", "sha256:00", "img@sha256:11", "Linux-6.1-x86_64", {"cuda": "12.4"}
        ),
        seed=0,
        host="node-7",
        command=("python", "train.py", "", "--lr=0.1"),
        exit_status=0,
        started_at=WHEN,
        ended_at=WHEN,
    )


@pytest.mark.parametrize("run", [bare_run(), full_run()], ids=["bare", "full"])
def test_a_record_is_read_as_it_was_written_and_keeps_its_schema(run: Run) -> None:
    data = run.render()
    assert Run.parse(data) == run == run.checked()
    assert Run.parse(data).render() == data
    validator("run").validate(json.loads(data))


def test_what_is_not_known_is_absent() -> None:
    assert set(bare_run().to_json()) == {"schema", "run_id", "at", "by", "change"}
    assert "dirty" not in bare_run(code=Code("abc")).to_json()["code"]
    assert bare_run(exit_status=0).to_json()["exit_status"] == 0
    assert bare_run(code=Code("abc", dirty=False)).to_json()["code"]["dirty"] is False


FREE = ("parameters", "metrics", "extra")
REQUIRED = {"schema", "run_id", "at", "by", "change", "commit", "snapshot_id"}


def objects(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield name, value
        for key, below in value.items():
            yield from objects(below, key)
    elif isinstance(value, list):
        for below in value[:1]:
            yield from objects(below, name)


def broken(document: dict[str, Any]) -> Iterator[str]:
    """Break the document in one way after another, in place; say how."""
    for name, found in [*objects(document)]:
        if name in FREE:
            continue
        found["unheard-of key!"] = 1
        yield f"a key more in {name!r}"
        del found["unheard-of key!"]
        for key, value in [*found.items()]:
            found[key] = [[]] if isinstance(value, dict) else {"no": "such"}
            yield f"{key} in {name!r} is another kind"
            if key in REQUIRED:
                del found[key]
                yield f"no {key} in {name!r}"
            elif isinstance(value, str):
                found[key] = "x" * 20_000
                yield f"{key} in {name!r} is too long"
            found[key] = value


def test_a_record_with_anything_out_of_place_is_refused_by_reader_and_schema() -> None:
    document = json.loads(full_run().render())
    ways = 0
    for way in broken(document):
        ways += 1
        with pytest.raises(RegistryDamaged):
            Run.parse(json.dumps(document).encode())
        assert not validator("run").is_valid(document), way
    assert ways > 50
    assert Run.parse(json.dumps(document).encode()) == full_run()


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"schema": NaN}', b'{"run_id": "r1"}'],
    ids=lambda data: repr(data)[:30],
)
def test_what_is_no_record_is_called_damaged(data: bytes) -> None:
    with pytest.raises(RegistryDamaged):
        Run.parse(data)


def test_a_newer_schema_is_told_from_damage() -> None:
    with pytest.raises(RegistryTooNew, match="/2"):
        Run.parse(full_run().render().replace(b"run/1", b"run/2", 1))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run_id": "../x"}, "run_id"),
        ({"host": "\ud800"}, "half a character"),
        ({"code": Code("a b")}, "commit"),
        ({"code": Code("-x")}, "commit"),
        ({"data": (Use(snapshot("a"), store="nowhere"),)}, "store"),
        ({"data": (Use(snapshot("a")),) * (USES_MAX + 1)}, "data"),
        ({"outputs": (Use(snapshot("a"), path="a\nb"),)}, "path"),
        ({"parameters": {"": 1}}, "parameters"),
        ({"parameters": {"a": float("1e999")}}, "parameters"),
        ({"parameters": {"a": {"b": "\x00"}}}, "U\\+0000"),
        ({"parameters": {"a": nested(DEPTH_MAX)}}, "deep"),
        ({"metrics": {"a": [0] * VALUES_MAX}}, "more than"),
        ({"command": ("x",) * (ARGUMENTS_MAX + 1)}, "command"),
        ({"command": ("\x1b[2J",)}, "command"),
        ({"exit_status": -1}, "exit_status"),
        ({"seed": "a\nb"}, "seed"),
        ({"started_at": WHEN, "ended_at": "2026-03-01T08:59:59Z"}, "before its started_at"),
        ({"started_at": "yesterday"}, "started_at"),
        ({"by": "a\nb"}, "by"),
    ],
    ids=str,
)
def test_what_could_not_be_read_again_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidName, match=said):
        replace(full_run(), **change).checked()


def test_a_record_has_an_end() -> None:
    with pytest.raises(RegistryFull):
        bare_run(parameters={f"{n}": "x" * 16_000 for n in range(70)}).checked()


def test_two_records_are_the_same_whoever_wrote_them_and_when() -> None:
    one = full_run()
    other = replace(one, at="2026-03-02T09:00:00.000Z", by="bob@host", change="c2")
    assert one.differences(other) == []
    assert one.differences(replace(other, seed=1, note="")) == ["note", "seed"]


def test_each_snapshot_has_one_link_a_kind() -> None:
    used = Use(snapshot("d"), path="again")
    run = full_run()
    run = replace(run, data=(*run.data, used), outputs=(*run.outputs, Use(snapshot("d"))))
    links = run.links()
    assert len(links) == 4
    assert ("used-by", snapshot("d")) in links
    assert ("made-by", snapshot("d")) in links
    assert run.uses(snapshot("d"))
    assert not run.uses(snapshot("o"))
    assert run.makes(snapshot("p"))
    assert run.is_linked("used-by", snapshot("d"))
    assert run.is_linked("made-by", snapshot("p"))
    assert not run.is_linked("used-by", snapshot("o"))


def test_a_link_keeps_its_schema_and_is_always_the_same() -> None:
    data = render_link("used-by", snapshot("d"), "r1")
    assert data == render_link("used-by", snapshot("d"), "r1")
    validator("run-link").validate(json.loads(data))


def test_our_ids_tell_the_time_and_sort_by_it() -> None:
    run_id = new_run_id(AT + 0.7, "3f2a91c0aa27b4d8")
    assert run_id == "20270115T080000Z-3f2a91c0"
    assert time_in_run_id(run_id) == AT
    assert new_run_id(AT + 1, "00000000") > run_id
    for other in ("r1", "20270115T080000Z", "20279915T080000Z-3f2a91c0", f"{run_id}x"):
        assert time_in_run_id(other) is None


def test_a_run_happened_when_it_began() -> None:
    assert bare_run().happened_at() < bare_run(started_at="2026-03-01T09:00:01Z").happened_at()


def test_the_author_is_kept() -> None:
    who = author("why", by="ann")
    assert author_of_run(who) == {
        "at": "2027-01-15T08:00:00.000Z",
        "by": "ann",
        "change": who.token,
        "note": "why",
    }
