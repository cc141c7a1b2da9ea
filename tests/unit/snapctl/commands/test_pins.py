from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapd.disk.leases import Leases
from snapd.model.ids import SnapshotId
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon

ID, OTHER = SnapshotId("a" * 64), "b" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has one snapshot, as far as pins look at it."""
    (tmp_path / "cache" / "snapsync" / "trees" / ID).mkdir(parents=True)
    (tmp_path / "cache" / "snapsync" / "version").write_text("1\n")
    return tmp_path / "cache" / "snapsync"


def test_pinned_explained_and_let_go(tmp_path: Path, cache: Path) -> None:
    leases = Leases(cache, now=lambda: 1.0)
    pin = ("cache", "pin", ID.upper(), "--standalone", "--reason")
    assert snapctl(*pin, "old", home=tmp_path).stdout == f"{ID} pinned\n"
    ran = snapctl(*pin, "baseline", "--json", home=tmp_path)
    (held,) = leases.holding(ID)
    assert held.reason == "baseline"
    assert json.loads(ran.stdout)["lease_id"] == held.lease_id
    unpin = ("cache", "unpin", ID, "--standalone")
    assert snapctl(*unpin, home=tmp_path).stdout == f"{ID} unpinned\n"
    assert leases.held() == {}
    again = snapctl(*unpin, "--json", home=tmp_path)
    assert again.returncode == 1
    assert json.loads(again.stderr)["code"] == "no_such_lease"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["pin", OTHER], 10),
        (["pin", "xyz"], 2),
        (["unpin", "xyz"], 2),
        (["pin", ID, "--reason", "two\nlines"], 2),
        (["pin"], 2),
    ],
)
def test_what_can_not_be_pinned(tmp_path: Path, words: list[str], code: int) -> None:
    ran = snapctl("cache", *words, "--standalone", home=tmp_path)
    assert ran.returncode == code, ran.stderr


def test_only_pins_of_that_snapshot_are_let_go(tmp_path: Path) -> None:
    at = tmp_path / "s"
    common = {"since": 1.0, "subject": "", "reason": ""}
    listed = [
        {"lease_id": "1", "snapshot_id": ID, "kind": "process", "process": {"pid": 1}} | common,
        {"lease_id": "2", "snapshot_id": ID, "kind": "pin"} | common,
        {"lease_id": "3", "snapshot_id": OTHER, "kind": "pin"} | common,
    ]
    scripts = {
        ("GET", "/v1/leases"): lambda it: it.reply(200, {"leases": listed}),
        ("DELETE", "/v1/leases/2"): lambda it: it.reply(200, listed[1]),
    }
    with scripted_daemon(at, scripts) as daemon:
        ran = snapctl("cache", "unpin", ID, "--socket", str(at), home=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert daemon.requests[-1] == ("DELETE", "/v1/leases/2", None)
    assert len(daemon.requests) == 2
