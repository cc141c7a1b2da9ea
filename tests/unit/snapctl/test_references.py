"""A reference is resolved once, by whoever reads the store, and told on stderr."""

from __future__ import annotations

from pathlib import Path

from snapd.model.ids import SnapshotId
from snapd.model.references import Resolved
from snapd.model.space import PlanView
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon

ID = SnapshotId("5c" * 32)
STORE = "s3://b"
FOUND = Resolved("iris@production", "model", "iris", "v1.0.0", ID, "production")
VIEW = PlanView(ID, STORE, True, 0, 0, 0, 0, 0, 0, 0, True)


def test_the_daemon_is_asked_and_only_the_id_is_used(tmp_path: Path) -> None:
    at = tmp_path / "s"
    scripts = {
        ("POST", "/v1/resolve"): lambda it: it.reply(200, FOUND.to_json()),
        ("POST", "/v1/plan"): lambda it: it.reply(200, VIEW.to_json()),
    }
    words = ("plan", "--id", "iris@production", "--store", f"{STORE}/", "--socket", str(at))
    with scripted_daemon(at, scripts) as server:
        ran = snapctl(*words, home=tmp_path)
        asked = [(path, body) for _, path, body in server.requests]
    assert ran.returncode == 0, ran.stderr
    assert asked[0] == ("/v1/resolve", {"reference": "iris@production", "store": STORE})
    assert asked[1][1]["id"] == ID
    assert f"iris@production is v1.0.0, {ID}\n" in ran.stderr


def test_a_deprecated_version_is_warned_of(tmp_path: Path) -> None:
    at = tmp_path / "s"
    found = Resolved("d@v1.0.0", "dataset", "d", "v1.0.0", ID, deprecated="labels")
    scripts = {
        ("POST", "/v1/resolve"): lambda it: it.reply(200, found.to_json()),
        ("POST", "/v1/plan"): lambda it: it.reply(200, VIEW.to_json()),
    }
    words = ("plan", "--id", "d@v1.0.0", "--store", STORE, "--socket", str(at))
    with scripted_daemon(at, scripts):
        told = snapctl(*words, home=tmp_path).stderr
        quiet = snapctl(*words, "--quiet", home=tmp_path).stderr
    assert told.splitlines() == [f"d@v1.0.0 is {ID}", "d@v1.0.0 is deprecated: labels"]
    assert quiet == ""


def test_an_id_is_looked_up_nowhere(tmp_path: Path) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, {("POST", "/v1/plan"): lambda it: it.reply(200, VIEW.to_json())}) as s:
        words = ("plan", "--id", ID.upper(), "--store", STORE, "--socket", str(at))
        ran = snapctl(*words, home=tmp_path)
        assert [path for _, path, _ in s.requests] == ["/v1/plan"]
    assert (ran.returncode, ran.stderr) == (0, "")


def test_without_a_daemon_it_is_looked_up_here(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    words = ("checkout", "--id", "iris@production", "out", "--store", store)
    ran = snapctl(*words, home=tmp_path)
    assert ran.returncode == 10
    assert "has no dataset or model 'iris'" in ran.stderr


def test_a_reference_needs_a_store(tmp_path: Path) -> None:
    ran = snapctl("checkout", "--id", "iris@production", "out", home=tmp_path)
    assert ran.returncode == 2
    assert "SNAPSYNC_STORE" in ran.stderr
