"""Following through the installed commands: real daemons, real switches, a real S3 server."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.following import (
    REFERENCE,
    Models,
    QuickModels,
    error_code,
    follow_table,
    follows,
    served,
    until,
    until_live,
)
from tests.e2e.installed import Host
from tests.servers.faultproxy import Fault, FaultProxy


@pytest.fixture
def models(host: Host, tmp_path: Path) -> Models:
    return QuickModels(host, f"file://{tmp_path}/store", tmp_path)


@pytest.fixture
def cloud(cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path) -> Models:
    return Models(cloud_host, s3_store(), tmp_path)


def test_a_promotion_reaches_a_node_and_a_rollback_downloads_nothing(
    cloud: Models, tmp_path: Path
) -> None:
    old, new = cloud.add("v0.1.0"), cloud.add("v0.2.0")
    cloud.promote("v0.1.0")
    dest = tmp_path / "srv" / "iris_clf"
    dest.parent.mkdir()
    with cloud.node("node") as (node, _daemon):
        words = ("--dest", dest, "--poll", "1s", "--store", cloud.store)
        asked = node.snapctl("follow", REFERENCE, *words)
        assert (asked.code, asked.stdout) == (0, f"{dest}/current\n"), asked.stderr
        view = until_live(node, "v0.1.0")
        assert (view["snapshot_id"], view["state"], view["behind_seconds"]) == (old, "live", 0)
        assert view["change"]["action"] == "promote"
        assert served(dest) == "v0.1.0"
        reader = os.open(dest / "current", os.O_RDONLY)
        cloud.promote("v0.2.0")
        until_live(node, "v0.2.0")
        assert served(dest) == "v0.2.0"
        inside = os.open("version", os.O_RDONLY, dir_fd=reader)
        assert os.read(inside, 100) == b"v0.1.0", "who reads the old tree is not disturbed"
        held = {
            x["snapshot_id"]
            for x in node.snapctl("leases", "--json").document["leases"]
            if x["kind"] == "follow"
        }
        assert held == {old, new}
        assert node.snapctl("cache", "evict", old).code != 0
        cloud.roll_back("accuracy fell")
        view = until_live(node, "v0.1.0")
        assert (view["change"]["by"], view["change"]["note"]) == (
            "ann@example.org",
            "accuracy fell",
        )
        assert [x["version"] for x in view["previous"]] == ["v0.2.0"]
        [*_, last] = sorted(
            node.snapctl("jobs", "--all", "--json").document["jobs"], key=lambda x: x["created_at"]
        )
        assert (last["snapshot_id"], last["objects_fetched"]) == (old, 0)
        assert served(dest) == "v0.1.0"
        os.close(reader)
        os.close(inside)


def test_the_configuration_follows_and_a_reload_changes_that(
    models: Models, tmp_path: Path
) -> None:
    models.add("v0.1.0"), models.add("v0.2.0")
    models.promote("v0.1.0")
    first, second = (tmp_path / "srv" / name for name in ("first", "second"))
    first.parent.mkdir()
    with models.node("node", follow_table(first)) as (node, daemon):
        until_live(node, "v0.1.0")
        refused = node.snapctl("follow", "stop", first)
        assert refused.code == 2
        assert "configuration" in refused.stderr

        def reload(text: str) -> None:
            (node.root / "snapd.toml").write_text(text)
            daemon.process.send_signal(signal.SIGHUP)

        table = follow_table(second, "keep_previous = 2", ref="iris_clf@v0.2.0")
        reload(models.config(table))
        view = until(node, lambda view: view["version"] == "v0.2.0")
        assert (view["dest"], view["configured"]) == (str(second), True)
        assert served(first) == "v0.1.0", "the link of the former stays"
        reload(models.config(table + follow_table(second)))
        while "is refused" not in daemon.log_text():
            time.sleep(0.02)
        assert "one in the other, or the same" in daemon.log_text()
        assert [each["dest"] for each in follows(node)] == [str(second)]


def test_a_killed_daemon_goes_on_where_it_was(models: Models, tmp_path: Path) -> None:
    models.add("v0.1.0")
    models.promote("v0.1.0")
    dest = tmp_path / "iris"
    with models.node("node") as (node, daemon):
        words = ("--dest", dest, "--poll", "1s", "--json")
        assert node.snapctl("follow", REFERENCE, *words).document["store"] == models.store
        since = until_live(node, "v0.1.0")["live_since"]
        daemon.kill()
    with models.node("node") as (node, _):
        view = until_live(node, "v0.1.0")
        assert (view["live_since"], view["configured"], view["uid"]) == (since, False, os.getuid())
        ended = node.snapctl("follow", "stop", dest)
        assert ended.stdout == f"{dest} is not followed any more\n"
        assert served(dest) == "v0.1.0"
        kinds = [x["kind"] for x in node.snapctl("leases", "--json").document["leases"]]
        assert "link" in kinds
        assert "follow" not in kinds
        assert node.snapctl("follow", "stop", dest).code == 1


def test_a_store_that_is_away_leaves_what_is_live(
    cloud: Models, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    cloud.add("v0.1.0"), cloud.add("v0.2.0")
    cloud.promote("v0.1.0")
    dest = tmp_path / "iris"
    quick = "\n[transfer]\nattempts_max = 2\nbackoff_base_seconds = 0.01\n"
    with cloud.node("node", quick + follow_table(dest), AWS_ENDPOINT_URL_S3=fault_proxy.url) as (
        node,
        daemon,
    ):
        until_live(node, "v0.1.0")
        fault_proxy.plan(Fault("reset", times=None))
        view = until(node, lambda view: view["poll_failures"] > 0)
        assert (error_code(view), view["state"]) == ("connection_lost", "live")
        assert served(dest) == "v0.1.0"
        with urllib.request.urlopen(f"http://{daemon.status['listen']}/metrics") as answer:
            assert 'snapd_follow_error{code="connection_lost"' in answer.read().decode()
        cloud.promote("v0.2.0")
        fault_proxy.plan()
        view = until_live(node, "v0.2.0")
        assert view["error"] is None


def test_damage_in_the_store_is_told_and_never_live(models: Models, tmp_path: Path) -> None:
    models.add("v0.1.0")
    models.promote("v0.1.0")
    dest = tmp_path / "iris"
    with models.node("node", follow_table(dest)) as (node, _):
        until_live(node, "v0.1.0")
        models.add("v0.2.0", extra=b"only here" * 100)
        [damaged] = [
            path
            for path in (tmp_path / "store" / ".objects").rglob("*")
            if path.is_file() and path.read_bytes() == b"only here" * 100
        ]
        damaged.chmod(0o644)
        damaged.write_bytes(b"only HERE" * 100)
        models.promote("v0.2.0")
        view = until(node, lambda view: view["error"])
        assert (error_code(view), view["version"], view["target_version"], view["state"]) == (
            "digest_mismatch",
            "v0.1.0",
            "v0.2.0",
            "behind",
        )
        said = node.snapctl("follow", "status")
        assert "v0.2.0 is to be live" in said.stderr
        assert "hint:" in said.stderr
        examined = node.snapctl("doctor", "--json").document["checks"]
        [check] = [each for each in examined if each["name"] == f"follow:{dest}"]
        assert (check["verdict"], check["details"]["code"]) == ("failure", "digest_mismatch")
        waited = node.snapctl(
            "follow", "status", REFERENCE, "--wait-for", "0.2.0", "--timeout", "1s", "--json"
        )
        assert (waited.code, waited.error["code"]) == (16, "timed_out")
        document = tmp_path / "store" / "registry" / "models" / "iris_clf" / "registry.json"
        document.write_text("{")
        until(node, lambda view: error_code(view) == "registry_damaged")
        assert served(dest) == "v0.1.0"


def test_what_can_not_be_followed_is_refused(models: Models, tmp_path: Path) -> None:
    models.add("v0.1.0")
    models.promote("v0.1.0")
    full = tmp_path / "full"
    full.mkdir()
    (full / "theirs").touch()
    with models.node("node") as (node, _):

        def refused(code: str, *words: str | Path) -> str:
            ran = node.snapctl("follow", *words, "--json")
            assert ran.error["code"] == code, ran.stderr
            assert "Traceback" not in ran.stderr
            assert ran.stdout == ""
            return str(ran.error["message"])

        new = tmp_path / "new"
        said = refused("no_such_name", "iris_clv@production", "--dest", new)
        assert "did you mean iris_clf" in said
        assert not new.exists(), "a refused one leaves nothing"
        refused("no_such_version", "iris_clf@nowhere", "--dest", new)
        refused("invalid_reference", "iris_clf", "--dest", new)
        refused("destination_taken", REFERENCE, "--dest", full)
        refused("usage", REFERENCE, "--dest", tmp_path / "no" / "such" / "volume")
        refused("usage", REFERENCE, "--dest", "/")
        refused("usage", REFERENCE, "--dest", new, "--poll", "1ms")
        refused("usage", REFERENCE, "--dest", new, "--hook", "/no/such/program")
        refused("dangerous_destination", REFERENCE, "--dest", node.cache / "iris")
        refused("store_not_allowed", REFERENCE, "--dest", new, "--store", "file:///etc")
        waits = node.snapctl("follow", "later@production", "--dest", new, "--wait", "--poll", "1s")
        assert waits.code == 0, waits.stderr
        view = until(node, lambda view: view["error"])
        assert (error_code(view), view["state"]) == ("no_such_name", "absent")
        refused("destination_taken", REFERENCE, "--dest", new)
        refused("destination_taken", REFERENCE, "--dest", new / "in-it")
        refused("no_such_follow", "stop", tmp_path)
        models.add("v1.0.0", name="later")
        models.promote("v1.0.0", name="later")
        until_live(node, "v1.0.0")
        listed = node.snapctl("follow", "status", "later@production").stdout.splitlines()
        assert listed[1].split()[:2] == ["later@production", "v1.0.0"]


def test_the_hook_runs_after_the_switch_with_a_clean_environment(
    models: Models, tmp_path: Path
) -> None:
    models.add("v0.1.0")
    models.promote("v0.1.0")
    dest, told = tmp_path / "iris", tmp_path / "told"
    hook = f"/bin/sh -c 'cat {dest}/current/version; env' "
    with models.node("node", AWS_SECRET_ACCESS_KEY="not for hooks") as (node, _):
        words = ("--dest", dest, "--hook", f'/bin/sh -c "({hook}) >{told}"', "--poll", "1s")
        asked = node.snapctl("follow", REFERENCE, *words)
        assert asked.code == 0, asked.stderr
        view = until(node, lambda view: view["hook"])
        assert (view["hook"]["status"], view["has_hook"]) == (0, True)
        lines = told.read_text().splitlines()
        assert lines[0].startswith("v0.1.0")
        assert not [line for line in lines if "AWS" in line]
        assert f"SNAPSYNC_PATH={dest}/current" in told.read_text()
        assert "not for hooks" not in node.snapctl("follow", "status", "--json").stdout
