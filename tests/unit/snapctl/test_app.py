from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from snapctl.app import VERBS, app
from snapd.model.errors import EXIT_CODE_MEANINGS
from tests.unit.snapctl.running import snapctl

MINE = [
    "pull",
    "status",
    "jobs",
    "watch",
    "cancel",
    "cache",
    "version",
    "completion",
    "exec",
    "leases",
]


def help_of(*verbs: str) -> str:
    with app.make_context("snapctl", [*verbs, "--help"], resilient_parsing=True) as ctx:
        command: click.Command = app
        for verb in verbs:
            assert isinstance(command, click.Group)
            found = command.get_command(ctx, verb)
            assert found is not None
            command = found
        with click.Context(command, info_name=verbs[-1] if verbs else "snapctl") as own:
            return command.get_help(own)


@pytest.mark.parametrize(
    "verbs", [(), *((verb,) for verb in MINE), ("cache", "ls"), ("cache", "pin")]
)
def test_every_help_ends_with_examples_and_the_table_of_exit_codes(verbs: tuple[str, ...]) -> None:
    text = help_of(*verbs)
    examples, codes = text.index("\nExamples:\n"), text.index("\nExit codes:\n")
    assert examples < codes
    assert "  snapctl" in text[examples:codes]
    listed = dict(line.split(None, 1) for line in text[codes:].splitlines()[2:])
    assert listed == {str(int(code)): meaning for code, meaning in EXIT_CODE_MEANINGS.items()}


@pytest.mark.parametrize("verb", MINE)
def test_every_verb_takes_the_common_options(verb: str) -> None:
    text = help_of(verb)
    for option in ("--json", "--events", "-q, --quiet", "--verbose", "--color", "--socket PATH"):
        assert option in text


@pytest.mark.parametrize("verb", MINE)
def test_a_verb_is_called_as_the_table_says(verb: str) -> None:
    assert import_module(VERBS[verb].module).command.name == verb


def test_the_overview_names_every_verb_and_imports_none() -> None:
    script = (
        "import sys\n"
        "from snapctl.app import app\n"
        "try: app.main(['--help'], prog_name='snapctl')\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('snapctl.commands')])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert ran.splitlines()[-1] == "[]"
    for verb, entry in VERBS.items():
        assert f"  {verb} " in ran
        assert entry.summary in ran


HEAVY = {
    "aiobotocore",
    "aiofiles",
    "aiohttp",
    "anyio",
    "asyncio",
    "botocore",
    "prometheus_client",
    "pycurl",
    "rich",
    "sqlite3",
    "uvloop",
}


@pytest.mark.parametrize(
    "verb", ["status", "jobs", "watch", "cancel", "cache", "leases", "exec", "version"]
)
def test_a_light_verb_imports_nothing_heavy(verb: str, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "import snapctl.__main__\n"
        f"import {VERBS[verb].module}\n"
        "from snapctl.client import Client\n"
        f"try: Client([{str(tmp_path / 'absent')!r}]).status()\n"
        "except Exception as error: assert error.code == 'daemon_not_running', error\n"
        "print(*(name.partition('.')[0] for name in sys.modules))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert "click" in ran.split()
    assert HEAVY.isdisjoint(ran.split())


def test_the_manual_names_every_verb_and_every_exit_code() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    for verb in VERBS:
        assert f"`snapctl {verb}" in manual
    for code, meaning in EXIT_CODE_MEANINGS.items():
        assert f"| {int(code)} | {meaning} |" in manual


def test_a_mistyped_verb_is_told_the_nearest(tmp_path: Path) -> None:
    ran = snapctl("pul", home=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("snapctl: No such command 'pul'. Did you mean 'pull'?\n")
    assert "Did you mean" not in snapctl("zzzz", home=tmp_path).stderr
