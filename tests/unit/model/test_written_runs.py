"""Runs are read as people write them, and nothing that was written is silently left out."""

from __future__ import annotations

from typing import Any

import pytest

from snapd.model.errors import InvalidId, InvalidName, InvalidReference, InvalidStoreUri, UsageError
from snapd.model.facts import VALUES_MAX
from snapd.model.run_parts import Code, Environment, Use
from snapd.model.run_texts import read_run_text
from snapd.model.runs import USES_MAX, Run
from snapd.model.written_runs import Named, WrittenRun, read_named, read_uses, run_as_written
from tests.unit.model.registering import author, snapshot
from tests.unit.model.test_runs import full_run

A, B = snapshot("a"), snapshot("b")

SIMPLE = f"""
run_id: iris-7
code_commit: 1234567
data_snapshot: {A}
params: {{lr: 0.1, layers: [1, 2], since: 2026-03-01, big: .inf, odd: .nan, 7: seven}}
env: {{python: 3.10, lock_hash: 77, image: null, cuda: 12.40}}
outputs: {{model: {B}}}
metrics: {{accuracy: 0.93}}
"""


def said(text: str) -> WrittenRun:
    return run_as_written(read_run_text(text.encode()))


def test_the_simple_form_is_accepted_as_it_is() -> None:
    written = said(SIMPLE)
    run = written.run("iris-7", author())
    assert written.run_id == "iris-7"
    assert run.code == Code("1234567")
    assert run.data == (Use(A),)
    assert run.outputs == (Use(B, path="model"),)
    assert run.parameters == {
        "lr": 0.1,
        "layers": [1, 2],
        "since": "2026-03-01",
        "big": "Infinity",
        "odd": "NaN",
        "7": "seven",
    }
    assert run.environment == Environment("3.10", None, "77", extra={"cuda": "12.40"})
    assert run.metrics == {"accuracy": 0.93}


def test_the_same_in_json() -> None:
    text = (
        f'{{"run_id": "iris-7", "code_commit": "9f3c", "data_snapshot": ["{A}", "{B}"],'
        f' "params": {{"lr": 0.1}}, "env": "conda base", "outputs": ["{B}"], "metrics": {{}}}}'
    )
    run = said(text).run("iris-7", author())
    assert [use.snapshot_id for use in run.data] == [A, B]
    assert run.environment.extra == {"text": "conda base"}


def test_a_record_is_read_as_it_is_printed() -> None:
    run = full_run()
    written = run_as_written(run.to_json())
    again = written.run(run.run_id, author(written.note, by=written.by or ""))
    assert again.differences(run) == []
    assert (written.by, written.note) == (run.by, run.note)


def test_what_is_kept_for_later_is_read_again() -> None:
    written = said(SIMPLE + "seed: 7\nstarted_at: 2026-03-01T09:00:00Z\n")
    again = run_as_written(written.to_json())
    assert again.run("r", author()).differences(written.run("r", author())) == []
    named = WrittenRun(data=(read_named("train=imagenet@v1.0.0", "--data"),))
    assert run_as_written(named.to_json()).data == named.data


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        (A, ((A, None),)),
        (A.upper(), ((A, None),)),
        ([A, {"id": B, "path": "val"}], ((A, None), (B, "val"))),
        ({"train": A, "val": B}, ((A, "train"), (B, "val"))),
        ({"train": {"snapshot": A}}, ((A, "train"),)),
        ({"snapshot_id": A, "path": "x"}, ((A, "x"),)),
    ],
    ids=str,
)
def test_snapshots_are_a_text_a_list_or_a_mapping(value: Any, expected: Any) -> None:
    assert tuple((each.named, each.path) for each in read_uses(value, "data")) == expected


def test_a_reference_stands_for_an_id_or_beside_it() -> None:
    [alone] = read_uses("imagenet@v1.2.0", "data")
    assert str(alone.reference()) == "imagenet@v1.2.0"
    with pytest.raises(UsageError, match="not been looked up"):
        alone.use()
    for value in (
        {"imagenet@v1.2.0": A},
        {"id": A, "ref": "imagenet@v1.2.0"},
        [{"snapshot_id": A, "reference": "imagenet@v1.2.0"}],
    ):
        [beside] = read_uses(value, "data")
        assert beside.use() == Use(A, "imagenet@v1.2.0")
    [only] = read_uses([{"reference": "imagenet@v1.2.0", "store": "s3://b/x"}], "data")
    assert (str(only.named), only.store) == ("imagenet@v1.2.0", "s3://b/x")


def test_an_option_may_say_what_a_snapshot_is_called() -> None:
    assert read_named(A, "--data") == Named(A)
    assert read_named(f"train={A}", "--data") == Named(A, "train")
    assert str(read_named("train=iris@v1.0.0", "--data").named) == "iris@v1.0.0"


def test_a_repository_may_stand_beside_the_commit() -> None:
    run = said("code_commit: abc\nrepository: https://ann:pw@git/x\ndirty: yes").run("r", author())
    assert run.code == Code("abc", dirty=True, repository="https://git/x")


def test_a_command_is_words_or_a_line() -> None:
    assert said("command: python train.py --x 'a b'").known["command"][-1] == "a b"
    assert said("command: [python, train.py]").known["command"] == ("python", "train.py")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("metrcs: {a: 1}", InvalidName, "did you mean metrics"),
        ("env: 3\npython_version: 3", InvalidName, "python_version"),
        ("params: 3", UsageError, "params|parameters"),
        ("data_snapshot: nothing", InvalidId, "data"),
        ("data_snapshot: iris@", InvalidReference, "iris"),
        ("data_snapshot: {train: {path: x}}", UsageError, "without an ID"),
        ("outputs: {model: null}", UsageError, "'model' without an ID"),
        (f"outputs: [{{id: {A}, size: 3}}]", InvalidName, "size"),
        (f"outputs: [{{id: {A}, snapshot: {A}}}]", UsageError, "twice"),
        (f"data: [{{id: {A}, store: nowhere}}]", InvalidStoreUri, "nowhere"),
        ("data: [[a]]", UsageError, "no text"),
        ("code_commit: abc\ncode: abd", UsageError, "twice"),
        ("dirty: true", UsageError, "no commit"),
        ("code: {commit: a, branch: b}", InvalidName, "branch"),
        ("code: {commit: a, dirty: maybe}", UsageError, "neither true nor false"),
        ("exit_status: -1", UsageError, "whole number"),
        ("command: 'a \"b'", UsageError, "command line"),
        ("run_id: ../x", InvalidName, "x"),
        ("schema: snapsync.run/2", UsageError, "run/2"),
        ("seed: {a: 1}", UsageError, "seed"),
        ("by: ''\nnote: {a: b}", UsageError, "note"),
        ("[1, 2]", UsageError, "no mapping"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    text: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        said(text)


def test_there_is_an_end_to_what_is_read() -> None:
    with pytest.raises(UsageError, match="at most"):
        run_as_written({"data": [A] * (USES_MAX + 1)})
    with pytest.raises(UsageError, match=f"{VALUES_MAX} values"):
        run_as_written({"params": {"a": list(range(VALUES_MAX))}})
    bomb = "\n".join(f"b{n}: &x{n} [*x{n - 1}, *x{n - 1}]" for n in range(1, 40))
    with pytest.raises(UsageError, match="values"):
        said(f"params:\n  b0: &x0 [1]\n  {bomb.replace(chr(10), chr(10) + '  ')}")


def test_what_json_can_not_carry_is_refused() -> None:
    with pytest.raises(InvalidName, match="bytes"):
        said("params: {a: !!binary aGk=}").run("r", author())


def test_a_run_is_checked_when_it_is_made() -> None:
    assert isinstance(WrittenRun().run("r", author()), Run)
    with pytest.raises(InvalidName, match="commit"):
        said("code_commit: a b").run("r", author())
