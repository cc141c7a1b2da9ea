from __future__ import annotations

import click
import pytest

from snapctl.app import app
from snapctl.context import Context
from snapctl.walking import WalkFlags, describe_walk, split_patterns
from snapd.disk.walk import WalkOptions, WalkProgress
from snapd.model.errors import InvalidPattern


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (",a,,b,", ["a", "b"]),
        ("a{1,2},b", ["a{1,2}", "b"]),
        ("(x,y)|[,],z", ["(x,y)|[,]", "z"]),
        ("[({],z", ["[({]", "z"]),
        (r"a\,b", [r"a\,b"]),
        (r"a\\,b", [r"a\\", "b"]),
        (r"\(,b", [r"\(", "b"]),
    ],
)
def test_patterns_are_split_at_commas_outside_of_brackets(value: str, parts: list[str]) -> None:
    assert split_patterns(value) == parts


def test_flags_become_options() -> None:
    context = Context(environment={"HOME": "/home/me"})
    assert WalkFlags((), False, 0).options(context) == WalkOptions()
    options = WalkFlags(("%system%",), True, 3).options(context)
    assert (options.follow, options.jobs) == (False, 3)
    assert options.excludes is not None
    assert options.excludes.matches("/home/me/.cache/x")
    with pytest.raises(InvalidPattern):
        WalkFlags(("(",), False, 0).options(context)


def test_only_who_asks_for_it_gets_a_stat_cache() -> None:
    context = Context(environment={"HOME": "/home/me"})
    kept = WalkFlags((), False, 0, no_stat_cache=False)
    assert kept.options(context).stat_cache_dir == "/home/me/.cache/snapsync/stat"
    elsewhere = Context(environment={"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"})
    assert kept.options(elsewhere).stat_cache_dir == "/cache/snapsync/stat"
    assert kept.options(Context(environment={"HOME": "relative"})).stat_cache_dir is None


@pytest.mark.parametrize("verb", ["id", "manifest", "diff", "push", "verify", "attest"])
def test_verifying_never_uses_the_stat_cache(verb: str) -> None:
    command = app.get_command(click.Context(app), verb)
    assert command is not None
    names = {parameter.name for parameter in command.params}
    assert "jobs" in names
    assert ("no_stat_cache" in names) == (verb not in ("verify", "attest"))


def test_progress_in_words() -> None:
    assert describe_walk(WalkProgress(7)) == "found 7 files and directories"
    progress = WalkProgress(9, 8, 3, 2048)
    assert describe_walk(progress) == "hashed 3 of 8 files, 2.0 KiB"
