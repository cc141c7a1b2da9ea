"""Which words of `snapctl run` are a verb of it, and which are a command to be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapctl.app import app
from snapctl.commands.run import command
from snapctl.commands.run_exec import _output_paths, _plain, _shown
from snapctl.context import Context
from snapd.model.errors import UsageError
from snapd.model.runs import ARGUMENT_MAX_CHARACTERS, ARGUMENTS_MAX
from tests.unit.snapctl.running import snapctl


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["--", "ls"], "exec"),
        (["--json", "--", "show", "x"], "exec"),
        (["--output", "a=b", "--", "record"], "exec"),
        (["--note=ls", "--", "true"], "exec"),
        (["exec", "--", "true"], "exec"),
        (["show", "--", "-r"], "show"),
        (["--json", "record", "--", "-file"], "record"),
        (["ls"], "ls"),
        (["-q", "record", "-"], "record"),
    ],
)
def test_a_command_follows_two_dashes_unless_a_verb_is_named(words: list[str], verb: str) -> None:
    with (
        app.make_context("snapctl", [], obj=Context(), resilient_parsing=True) as parent,
        command.make_context("run", [*words], parent=parent) as ctx,
    ):
        given = [*ctx._protected_args, *ctx.args]
        assert command.resolve_command(ctx, given)[0] == verb


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("python", "train.py"), "snapctl run -- python"),
        (("--store", "file:///x", "--"), "Missing argument"),
        (("--no-such-option", "--", "true"), "--no-such-option"),
        (("--output", "=x", "--store", "file:///x", "--", "true"), "--output"),
        (("--run-id", "a/b", "--store", "file:///x", "--", "true"), "not a name"),
        (("--param", "a", "--store", "file:///x", "--", "true"), "NAME=VALUE"),
        (("--events", "--store", "file:///x", "--", "true"), "--events"),
    ],
)
def test_what_is_typed_wrong_is_said_before_anything_runs(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    ran = snapctl("run", *words, home=tmp_path)
    assert ran.returncode == 2
    assert said in ran.stderr


def test_outputs_are_paths_that_may_have_names() -> None:
    assert _output_paths(("out", "model=out/m", "./a=b")) == {
        "out": "out",
        "model": "out/m",
        "./a=b": "./a=b",
    }
    for wrong in (("a", "a"), ("",), ("x=",)):
        with pytest.raises(UsageError):
            _output_paths(wrong)


def test_a_command_line_is_shown_as_a_record_can_hold_it() -> None:
    assert _plain("a\x1b\udc80é\n") == "a\\x1b\\udc80é\n"
    assert len(_plain("x" * 100_000)) <= ARGUMENT_MAX_CHARACTERS
    assert _plain("x" * 100_000).endswith("(100000 characters)")
    many = _shown(("x",) * (ARGUMENTS_MAX + 5), {})
    assert len(many) == ARGUMENTS_MAX
    assert _shown(("a", "--token=b", "secretvalue"), {"API_KEY": "secretvalue"}) == (
        "a",
        "--token=***",
        "***",
    )
