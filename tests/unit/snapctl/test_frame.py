from __future__ import annotations

import click
import pytest

from snapctl.context import Context
from snapctl.frame import config_option, id_option, standalone_option, store_option, verb


@verb("probe", examples=["snapctl probe"])
@id_option(required=False)
@store_option(required=False)
@standalone_option
@config_option
@click.argument("dest", required=False)
def probe(context: Context, **given: object) -> tuple[Context, dict[str, object]]:
    """Show what a verb is given."""
    return context, given


def run(*arguments: str) -> tuple[Context, dict[str, object]]:
    with probe.make_context("probe", list(arguments)) as ctx:
        found: tuple[Context, dict[str, object]] = probe.invoke(ctx)
        return found


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ([], "never"),
        (["--standalone"], "always"),
        (["--standalone=auto"], "auto"),
        (["--standalone=1"], "always"),
        (["--standalone=False"], "never"),
        (["--standalone", "--no-standalone"], "never"),
    ],
)
def test_standalone_is_a_switch_and_a_choice(arguments: list[str], meant: str) -> None:
    assert run(*arguments)[1]["standalone"] == meant


def test_the_switch_does_not_swallow_the_destination() -> None:
    given = run("--standalone", "dest")[1]
    assert (given["standalone"], given["dest"]) == ("always", "dest")


def test_a_path_that_looks_like_the_switch_may_follow_the_end_of_options() -> None:
    assert run("--", "--standalone")[1]["dest"] == "--standalone"


def test_variables_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPSYNC_STANDALONE", "yes")
    monkeypatch.setenv("SNAPSYNC_STORE", "s3://from-variable")
    monkeypatch.setenv("SNAPSYNC_CONFIG", "/variable.toml")
    context, given = run("--store", "s3://from-flag")
    assert given["standalone"] == "always"
    assert given["store"] == "s3://from-flag"
    assert context.config == "/variable.toml"


def test_the_common_options_set_the_context() -> None:
    context, given = run("--json", "-q", "--color", "never", "--verbose", "--config", "/c")
    assert (context.as_json, context.quiet, context.verbose) == (True, True, True)
    assert (context.color, context.events, context.config) == ("never", False, "/c")
    assert "as_json" not in given
