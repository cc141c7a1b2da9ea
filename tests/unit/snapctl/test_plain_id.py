from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from snapctl.plain_id import PlainId, plain_id
from snapd.disk.walk import walk
from tests.unit.snapctl.running import environment_of, said_beside_progress, snapctl


def started(*arguments: str, home: Path, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run the console script."""
    start = f"import sys\nfrom snapctl.start import main\ncode = main()\n{script}\nsys.exit(code)"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        env=environment_of(home),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["id", "d"], PlainId("d", True)),
        (["id", "/"], PlainId("/", True)),
        (["id", "d", "--no-stat-cache"], PlainId("d", False)),
        (["id", "--no-stat-cache", "d"], PlainId("d", False)),
        (["id", "--no-stat-cache"], None),
        (["id", "d", "e"], None),
        (["id"], None),
        (["id", ""], None),
        (["id", "-"], None),
        (["id", "--help"], None),
        (["id", "d", "--json"], None),
        (["--json", "id"], None),
        (["manifest", "d"], None),
    ],
)
def test_only_a_path_alone_is_plain(arguments: list[str], asked: PlainId | None) -> None:
    assert plain_id(arguments, {}) == asked
    assert plain_id(arguments, {"_SNAPCTL_COMPLETE": "bash_complete"}) is None


@pytest.mark.parametrize("spelt", ["./{}", "{}/", "{}/../{}", "./{}//."])
def test_it_prints_what_the_command_prints(tmp_path: Path, spelt: str) -> None:
    (tmp_path / "ü").mkdir()
    (tmp_path / "ü/f").write_bytes(b"1")
    plain = started("id", spelt.format("ü", "ü"), home=tmp_path)
    full = snapctl("--quiet", "id", spelt.format("ü", "ü"), home=tmp_path)
    said = said_beside_progress(plain, "id: ")
    assert (plain.returncode, plain.stdout, said) == (0, full.stdout, [])
    assert plain.stdout == f"{walk(tmp_path / 'ü').manifest.id}\n"
    assert list((tmp_path / "cache/snapsync/stat").iterdir())


def test_it_may_do_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    ran = started("id", "d", "--no-stat-cache", home=tmp_path)
    assert ran.stdout == f"{walk(tmp_path / 'd').manifest.id}\n"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("directory", ["missing", "file", "unfit"])
def test_it_fails_as_the_command_fails(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "unfit").mkdir()
    (tmp_path / "unfit/a\nb").touch()
    plain = started("id", directory, home=tmp_path)
    full = snapctl("--quiet", "id", directory, home=tmp_path)
    assert plain.returncode == full.returncode != 0
    assert (plain.stdout, plain.stderr) == (full.stdout, full.stderr)


def test_it_loads_no_machinery(tmp_path: Path) -> None:
    ran = started("id", ".", home=tmp_path, script="print(*sys.modules)")
    assert ran.returncode == 0
    assert {"click", "pathlib", "json", "subprocess", "rich"}.isdisjoint(ran.stdout.split())


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    script = "from snapctl.start import main; raise SystemExit(main())"
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-c", script, "id", "."],
            env=environment_of(tmp_path),
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert ran.returncode == 1
    assert "can't write to stdout" in ran.stderr
