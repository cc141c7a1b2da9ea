from __future__ import annotations

import pytest

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


def test_progress_in_words() -> None:
    assert describe_walk(WalkProgress(7)) == "found 7 files and directories"
    progress = WalkProgress(9, 8, 3, 2048)
    assert describe_walk(progress) == "hashed 3 of 8 files, 2.0 KiB"
