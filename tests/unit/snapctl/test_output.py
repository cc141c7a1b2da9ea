from __future__ import annotations

import io
import json

import pytest

from snapctl.output import Output
from snapd.model.errors import NoSpace


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_document_is_one_json_text_alone_on_stdout() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr, as_json=True)
    output.print_json({"tree": "/ä"})
    assert json.loads(stdout.getvalue()) == {"tree": "/ä"}
    assert "ä" in stdout.getvalue()
    assert stderr.getvalue() == ""


def test_a_document_among_events_is_one_line() -> None:
    stdout = io.StringIO()
    Output(stdout, io.StringIO(), as_json=True, events=True).print_json({"a": [1, 2]})
    assert stdout.getvalue() == '{"a":[1,2]}\n'


def test_an_event_is_one_line() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr, events=True)
    output.event({"a": 1, "b": "x\ny"})
    output.event({"a": 2})
    assert [json.loads(line)["a"] for line in stdout.getvalue().splitlines()] == [1, 2]


def test_a_table_is_as_wide_as_its_cells_and_has_no_trailing_spaces() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr)
    output.table(("ID", "STATE"), [("abcdef", "done"), ("a", "failed")])
    assert stdout.getvalue() == "ID      STATE\nabcdef  done\na       failed\n"


def test_an_empty_table_is_its_heading() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr)
    output.table(("ID", "STATE"), [])
    assert stdout.getvalue() == "ID  STATE\n"


def test_an_error_for_people_is_two_lines_on_stderr() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr)
    output.error(NoSpace("the disk /d is full", hint="Free some."))
    assert stderr.getvalue() == "snapctl: the disk /d is full\nhint: Free some.\n"
    assert stdout.getvalue() == ""


def test_an_error_without_a_hint_has_no_hint_line() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr)
    output.error(NoSpace("full", hint=""))
    assert stderr.getvalue() == "snapctl: full\n"


def test_an_error_for_programs_is_the_last_line_of_stderr() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr, as_json=True)
    output.note("something before")
    output.error(NoSpace("line\nbreak", path="/d"))
    last = json.loads(stderr.getvalue().splitlines()[-1])
    assert last["code"] == "no_space"
    assert last["exit_code"] == 11
    assert last["message"] == "line\nbreak"
    assert last["details"] == {"path": "/d"}


def test_quiet_silences_notes_but_not_errors() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr, quiet=True)
    output.note("progress")
    assert stderr.getvalue() == ""
    output.error(NoSpace("full"))
    assert "full" in stderr.getvalue()


@pytest.mark.parametrize(
    ("color", "environment", "on_terminal", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_color(color: str, environment: dict[str, str], on_terminal: bool, expected: bool) -> None:
    stream = Terminal() if on_terminal else io.StringIO()
    output = Output(stream, stream, color=color, environment=environment)
    assert output.has_color(stream) is expected
    output.error(NoSpace("full"))
    assert ("\x1b[" in stream.getvalue()) is expected
