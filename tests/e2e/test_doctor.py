"""`snapctl doctor` on real hosts: with a daemon and stores, and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.installed import Host, write_files


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in document["checks"]}


def test_a_node_in_order(cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path) -> None:
    store, directory = s3_store(), f"file://{tmp_path}/store"
    source = write_files(tmp_path / "source", {"a": b"alpha"})
    assert cloud_host.snapctl("push", source, "--store", directory).code == 0
    secret = cloud_host.variables["AWS_SECRET_ACCESS_KEY"]
    with cloud_host.daemon("--store", store, "--store", directory):
        ran = cloud_host.snapctl("doctor", "--json")
        shown = cloud_host.snapctl("doctor")
    assert ran.code == 0, ran.stdout
    found = verdicts(ran.document)
    wanted = ("daemon", "socket", f"store:{store}", f"credentials:{store}", f"clock:{store}")
    for name in (*wanted, f"store:{directory}", "disk", "features", "role", "trees", "versions"):
        assert found[name] == "ok", ran.stdout
    assert (ran.document["failure"], ran.document["exit_code"]) == (0, 0)
    (who,) = (c for c in ran.document["checks"] if c["name"] == f"credentials:{store}")
    assert who["details"]["identity"] == "snap…tkey (env)"
    assert secret not in ran.stdout + shown.stdout
    assert any(line.startswith("ok      daemon: snapd ") for line in shown.stdout.splitlines())


def test_what_is_wrong_with_stores_is_told(cloud_host: Host, tmp_path: Path) -> None:
    cloud_host.variables["AWS_SECRET_ACCESS_KEY"] = "not the right one"
    stores = ("s3://shared/x", f"file://{tmp_path}/absent")
    arguments = [word for store in stores for word in ("--store", store)]
    with cloud_host.daemon(*arguments):
        ran = cloud_host.snapctl("doctor", "--json")
        shown = cloud_host.snapctl("doctor")
    checks = {check["name"]: check for check in ran.document["checks"]}
    assert checks["store:s3://shared/x"]["details"]["code"] == "access_denied"
    assert checks[f"store:file://{tmp_path}/absent"]["details"]["code"] == "store_missing"
    assert (ran.code, shown.code) == (15, 15)
    assert "FAILURE store:s3://shared/x: " in shown.stdout
    assert "        -> The secret key does not belong to the access key" in shown.stdout


def test_without_a_daemon_it_says_so_and_looks_at_the_rest(host: Host) -> None:
    host.environment()
    ran = host.snapctl("doctor", "--json")
    found = verdicts(ran.document)
    assert (ran.code, found["daemon"], found["disk"]) == (14, "failure", "ok")
    assert found["state directory"] == "ok"
    assert "store" not in " ".join(found)


def test_a_state_directory_of_a_newer_version(host: Host) -> None:
    """The daemon refuses it and touches nothing; the doctor says why there is no daemon."""
    host.environment()
    host.cache.mkdir(parents=True)
    (host.cache / "version").write_text("99\n")
    refused = host.run("snapd", "--listen", "", "--log-format", "json")
    assert refused.code == 1
    assert '"code": "cache_unusable"' in refused.stderr
    assert "layout version 99" in refused.stderr
    assert [path.name for path in host.cache.iterdir() if path.name != "locks"] == ["version"]
    ran = host.snapctl("doctor", "--json")
    checks = {check["name"]: check for check in ran.document["checks"]}
    assert checks["state directory"]["verdict"] == "failure"
    assert "layout version 99" in checks["state directory"]["message"]


def test_a_configuration_that_is_unfit(host: Host, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[daemon]\nstorse = []\n")
    ran = host.snapctl("doctor", "--config", tmp_path / "bad.toml")
    assert ran.code == 2
    assert "FAILURE configuration: " in ran.stdout
    assert "storse" in ran.stdout
