from __future__ import annotations

from pathlib import Path

import pytest

from snapctl.run_reports import Report, read_report
from snapd.model.errors import SnapsyncError, UsageError
from snapd.model.written_runs import Named
from tests.unit.model.registering import snapshot

A = snapshot("a")


def told(tmp_path: Path, text: str) -> Report:
    file = tmp_path / "run"
    file.write_text(text)
    return read_report(file)


def test_a_command_that_says_nothing_is_fine(tmp_path: Path) -> None:
    assert told(tmp_path, " \n") == Report()


def test_facts_are_read(tmp_path: Path) -> None:
    report = told(tmp_path, "metrics: {acc: 0.9}\nparams: {lr: 0.1}\nseed: 3\nnote: good\n")
    assert report.written.known["metrics"] == {"acc": 0.9}
    assert report.written.known["parameters"] == {"lr": 0.1}
    assert report.written.known["seed"] == 3
    assert report.written.note == "good"


@pytest.mark.parametrize(
    ("outputs", "paths", "named"),
    [
        ("out/model", {"out/model": "out/model"}, []),
        (A, {}, [Named(A)]),
        (f"[out, {A}]", {"out": "out"}, [Named(A)]),
        (f"{{model: ./m, old: {A}}}", {"model": "./m"}, [Named(A, "old")]),
        (f"[{{id: {A}, path: x}}]", {}, [Named(A, "x")]),
        ("null", {}, []),
    ],
)
def test_outputs_are_ids_or_paths_to_be_pushed(
    tmp_path: Path, outputs: str, paths: dict[str, str], named: list[Named]
) -> None:
    report = told(tmp_path, f"outputs: {outputs}\n")
    assert report.paths == paths
    assert list(report.written.outputs) == named


@pytest.mark.parametrize("text", ["run_id: a", "exit_status: 0", "code_commit: a", "host: x"])
def test_what_is_found_out_is_not_taken_from_the_command(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="finds out itself"):
        told(tmp_path, text)


@pytest.mark.parametrize("text", ["acc = 0.9", "a: [", "metrcs: {a: 1}"])
def test_what_can_not_be_read_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SnapsyncError):
        told(tmp_path, text)
    with pytest.raises(UsageError, match="can't read"):
        read_report(tmp_path / "absent")
