"""A checkout that is begun before the options are loaded does what the command does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from snapctl.plain_checkout import PlainCheckout, plain_checkout
from snapctl.used import VARIABLE
from snapd.model.checkouts import CheckoutOptions
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from tests.trees import manifest_of
from tests.unit.snapctl.commands.test_checkout import FILES, cache_with
from tests.unit.snapctl.running import environment_of, snapctl
from tests.unit.snapctl.scripted import scripted_daemon

ID = SnapshotId("ab" * 32)
AUTO = CheckoutOptions()
START = "import sys\nfrom snapctl.start import main\ncode = main()\n{}\nsys.exit(code)"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return cache_with(tmp_path / "cache/snapsync", FILES)


def started(
    *arguments: str, home: Path, extra: Mapping[str, str] | None = None, script: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the console script."""
    return subprocess.run(
        [sys.executable, "-c", START.format(script), *arguments],
        env=environment_of(home, extra),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (f"--id {ID} d", PlainCheckout(ID, "d", AUTO)),
        (f"d --id={ID}", PlainCheckout(ID, "d", AUTO)),
        (f"--id {ID} a=b -q", PlainCheckout(ID, "a=b", AUTO, quiet=True)),
        (
            f"--mode hardlink --id {ID} d --delete --verify --keep-setid",
            PlainCheckout(
                ID, "d", CheckoutOptions("hardlink", True, False, None, True, verify=True)
            ),
        ),
        (
            f"--quiet --from-cache=/c --socket /s --id {ID} d",
            PlainCheckout(ID, "d", AUTO, "/c", "/s", quiet=True),
        ),
        (f"--id {ID}", None),
        ("d", None),
        (f"--id {ID} d e", None),
        (f"--id {ID} --id {ID} d", None),
        (f"--id {ID} d --from-cache /a --cache-dir /b", None),
        (f"--id {ID.upper()} d", None),
        ("--id imagenet@v1.2.0 d", None),
        (f"--id {ID} --mode fast d", None),
        (f"--id {ID} --mode", None),
        (f"--id {ID} -- d", None),
        (f"--id {ID} d --json", None),
        (f"--id {ID} d --dryrun", None),
        (f"--id {ID} d --delete --exclude x", None),
        (f"--id {ID} d --help", None),
    ],
)
def test_what_is_not_plain_is_left_to_the_command_line(
    words: str, asked: PlainCheckout | None
) -> None:
    arguments = ["checkout", *words.split()]
    assert plain_checkout(arguments, {}) == asked
    assert plain_checkout(arguments, {"_SNAPCTL_COMPLETE": "bash_complete"}) is None
    assert plain_checkout(["--json", *arguments], {}) is None


def test_an_empty_destination_is_left_to_the_command_line() -> None:
    assert plain_checkout(["checkout", "--id", ID, ""], {}) is None


def test_variables_stand_in_as_they_do_for_the_command() -> None:
    named = {"SNAPSYNC_CACHE_DIR": "/c", "SNAPSYNC_SOCKET": "/s", "SNAPSYNC_CONFIG": "/f"}
    words = ["checkout", "--id", ID, "d"]
    assert plain_checkout(words, named) == PlainCheckout(ID, "d", AUTO, "/c", "/s", "/f")
    said = plain_checkout([*words, "--cache-dir", "/x", "--socket", "/y"], named)
    assert said == PlainCheckout(ID, "d", AUTO, "/x", "/y", "/f")


@pytest.mark.parametrize("mode", ["auto", "copy", "hardlink", "symlink"])
def test_it_prints_what_the_command_prints(tmp_path: Path, manifest: Manifest, mode: str) -> None:
    words = ("checkout", "--id", manifest.id, "--mode", mode)
    plain = started(*words, "d", home=tmp_path)
    full = snapctl(*words, "e", home=tmp_path)
    assert plain.returncode == 0
    assert (plain.stdout, plain.stderr) == (
        full.stdout.replace("/e\n", "/d\n"),
        full.stderr.replace("/e\n", "/d\n"),
    )
    assert manifest_of((tmp_path / "d").resolve()).id == manifest.id


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("--id", ID, "d"), {}),
        (("--id", "HERE", "."), {}),
        (("--id", "HERE", "file"), {}),
        (("--id", "HERE", "d", "--from-cache", "/nowhere"), {}),
        (("--id", "HERE", "d", "--mode", "slow"), {}),
        (("--id", "HERE", "d"), {"SNAPSYNC_TREES": "relative"}),
        (("--id", "HERE"), {}),
    ],
)
def test_it_fails_as_the_command_fails(
    tmp_path: Path, manifest: Manifest, words: tuple[str, ...], extra: Mapping[str, str]
) -> None:
    (tmp_path / "file").touch()
    words = ("checkout", *(manifest.id if word == "HERE" else word for word in words))
    plain = started(*words, home=tmp_path, extra=extra)
    full = snapctl(*words, home=tmp_path, extra=extra)
    assert plain.returncode == full.returncode != 0
    assert (plain.stdout, plain.stderr) == (full.stdout, full.stderr)


def test_a_surrounding_run_is_told(tmp_path: Path, manifest: Manifest) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    words = ("checkout", "--id", manifest.id)
    started(*words, "d", home=tmp_path, extra={VARIABLE: str(notes)})
    snapctl(*words, "e", home=tmp_path, extra={VARIABLE: str(notes)})
    plain, full = map(json.loads, notes.read_text().splitlines())
    assert plain == {"snapshot_id": manifest.id, "path": str(tmp_path / "d")}
    assert plain.keys() == full.keys()


def test_it_loads_no_machinery(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "cache/snapsync/version").touch()  # not its first use, which puts it in order
    words = ("checkout", "--id", manifest.id, "d", "--mode", "hardlink")
    ran = started(*words, home=tmp_path, script="print(*sys.modules)")
    assert ran.returncode == 0
    unwanted = {"click", "dataclasses", "logging", "tomllib", "ctypes", "socket", "rich", "anyio"}
    assert unwanted.isdisjoint(ran.stdout.split())


def test_a_daemon_is_asked_once_where_its_trees_are(tmp_path: Path, manifest: Manifest) -> None:
    cache, at = tmp_path / "cache/snapsync", tmp_path / "s"
    places = {"state_directory": str(cache), "trees_directory": str(cache / "trees")}
    lease = {"lease_id": "0-1", "snapshot_id": manifest.id, "kind": "process", "since": 1.0}
    scripts = {
        ("GET", "/v1/status"): lambda it: it.reply(200, places),
        ("POST", "/v1/leases"): lambda it: it.reply(201, lease),
        ("DELETE", "/v1/leases/0-1"): lambda it: it.reply(200, lease),
    }
    with scripted_daemon(at, scripts) as daemon:
        ran = started("checkout", "--id", manifest.id, "d", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 0, ran.stderr
    asked = [(method, path) for method, path, _ in daemon.requests]
    assert asked == [("GET", "/v1/status"), ("POST", "/v1/leases"), ("DELETE", "/v1/leases/0-1")]


def test_output_that_cannot_be_written_is_told(tmp_path: Path, manifest: Manifest) -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-c", START.format(""), "checkout", "--id", manifest.id, "d"],
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
