from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapd.disk.walk import walk
from tests.unit.snapctl.running import snapctl


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    """Two directories, `old` and `new`, and a store that has both."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_bytes(b"same")
    (tmp_path / "old/gone").write_bytes(b"1")
    (tmp_path / "old/changed").write_bytes(b"1")
    (tmp_path / "new/changed").write_bytes(b"2")
    (tmp_path / "new/brand new").write_bytes(b"1")
    (tmp_path / "new/empty").mkdir()
    for name in ("old", "new"):
        ran = snapctl("push", name, "--store", f"file://{tmp_path}/store", home=tmp_path)
        assert ran.returncode == 0, ran.stderr
    return tmp_path


EXPECTED = "A\t./brand new\nM\t./changed\nA\t./empty/\nD\t./gone\n"


def test_every_kind_of_side(sides: Path) -> None:
    old, new = walk(sides / "old").manifest, walk(sides / "new").manifest
    (sides / "old.manifest").write_bytes(old.text)
    store = f"file://{sides}/store"
    for arguments in (
        ("old", "new"),
        ("old.manifest", "new"),
        (old.id, "new", "--store", store),
        (old.id.upper(), new.id, "--store", store),
        ("--from", "old", "--to", "new"),
        ("new", "--from", "old"),
    ):
        ran = snapctl("diff", *arguments, home=sides)
        assert (ran.returncode, ran.stdout) == (0, EXPECTED), ran.stderr
    ran = snapctl("diff", "-", "new", home=sides, stdin=old.text.decode())
    assert ran.stdout == EXPECTED


def test_exit_code_and_equal_rows(sides: Path) -> None:
    assert snapctl("diff", "old", "new", "--exit-code", home=sides).returncode == 1
    same = snapctl("diff", "old", "old", "--exit-code", home=sides)
    assert (same.returncode, same.stdout) == (0, "")
    every = snapctl("diff", "old", "old", "--all", "--exit-code", home=sides)
    assert every.returncode == 0
    assert "=\t./same\n" in every.stdout


def test_json_is_one_line(sides: Path) -> None:
    ran = snapctl("diff", "old", "new", "--json", home=sides)
    assert ran.stdout.startswith('[{"status":"A","path":"./brand new"},')
    assert len(json.loads(ran.stdout)) == 4
    assert snapctl("diff", "old", "old", "--json", home=sides).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("old",), 2, "two sides"),
        (("-", "-"), 2, "standard input"),
        (("old", "typo"), 2, "typo"),
        (("old", "0" * 64), 2, "--store"),
        (("old", "0" * 64, "--store", "STORE"), 10, "0" * 64),
        (("old", "0" * 64, "--store", "file:///no/such/store"), 13, "/no/such/store"),
        (("old", "old/same"), 17, "refused"),
        (("old", "/dev/null/x"), 2, "/dev/null/x"),
    ],
)
def test_unreadable_side_is_an_error(
    sides: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    store = f"file://{sides}/store"
    given = (store if argument == "STORE" else argument for argument in arguments)
    ran = snapctl("diff", *given, home=sides)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert told in ran.stderr


def test_events_are_a_change_a_line(sides: Path) -> None:
    ran = snapctl("diff", "old", "new", "--events", home=sides)
    changes = [json.loads(line) for line in ran.stdout.splitlines()]
    assert "".join(f"{change['status']}\t{change['path']}\n" for change in changes) == EXPECTED
