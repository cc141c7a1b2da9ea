"""The main road: directory -> store -> daemon -> shared cache -> checkout."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.installed import READY_SECONDS, Host, files_below, ids_in, write_files

FILES = {f"d{number % 7}/f{number}": f"content {number}".encode() * 50 for number in range(200)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_files(tmp_path / "source", {**FILES, "big.bin": os.urandom(20_000_000)})


def push(host: Host, source: Path, store: str) -> str:
    ran = host.snapctl("push", source, "--store", store)
    assert ran.code == 0, ran.stderr
    assert ran.stdout == f"{ids_in(ran.stdout)[0]}\n"
    return ran.stdout.strip()


def test_the_whole_way_over_s3(
    cloud_host: Host, source: Path, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    host, store = cloud_host, s3_store()
    snapshot_id = push(host, source, store)
    with host.daemon("--store", store):
        first = host.snapctl("pull", "--id", snapshot_id, "--store", store, "--json")
        assert first.code == 0, first.stderr
        assert first.document["bytes_fetched"] == sum(map(len, {*files_below(source).values()}))
        tree = Path(first.document["tree"])
        assert host.snapctl("id", tree).stdout.strip() == snapshot_id
        second = host.snapctl("pull", "--id", snapshot_id, "--store", store, "--json")
        assert second.document["bytes_fetched"] == 0
        assert second.document["tree"] == str(tree)
        for mode in ("auto", "copy", "hardlink", "symlink"):
            dest = tmp_path / mode
            if mode == "hardlink":
                dest = host.cache.parent / mode
            ran = host.snapctl("checkout", "--id", snapshot_id, dest, "--mode", mode)
            assert ran.code == 0, ran.stderr
            assert files_below(dest) == files_below(source)
        assert host.snapctl("id", tmp_path / "auto").stdout.strip() == snapshot_id
        listed = host.snapctl("cache", "ls", "--json")
        assert snapshot_id in listed.stdout
        assert snapshot_id[:12] in host.snapctl("jobs", "--all").stdout


def test_standalone_without_a_daemon(host: Host, source: Path, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    snapshot_id = push(host, source, store)
    refused = host.snapctl("pull", "--id", snapshot_id, "--store", store)
    assert refused.code == 14
    dest = tmp_path / "dest"
    ran = host.snapctl("pull", "--id", snapshot_id, "--store", store, dest, "--standalone")
    assert ran.code == 0, ran.stderr
    assert files_below(dest) == files_below(source)
    again = host.snapctl("pull", "--id", snapshot_id, "--store", store, "--standalone", "--json")
    assert again.document["bytes_fetched"] == 0


def test_standalone_and_daemon_at_once_on_one_cache(
    host: Host, source: Path, tmp_path: Path
) -> None:
    store = f"file://{tmp_path}/store"
    snapshot_id = push(host, source, store)
    arguments = ("pull", "--id", snapshot_id, "--store", store)
    with host.daemon("--store", store):
        started = [host.start("snapctl", *arguments, "--standalone") for _ in range(2)]
        started.append(host.start("snapctl", *arguments))
        for process in started:
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert output.strip() == str(host.cache / "trees" / snapshot_id)
    tree = host.cache / "trees" / snapshot_id
    assert host.snapctl("id", tree).stdout.strip() == snapshot_id


def test_a_killed_daemon_goes_on_where_it_was(host: Host, source: Path, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    snapshot_id = push(host, source, store)
    with host.daemon("--store", store) as daemon:
        assert host.snapctl("pull", "--id", snapshot_id, "--store", store).code == 0
        daemon.kill()
    with host.daemon("--store", store):
        ran = host.snapctl("pull", "--id", snapshot_id, "--store", store, "--json")
        assert ran.document["bytes_fetched"] == 0


def test_environment_variables_stand_in_for_flags(host: Host, source: Path, tmp_path: Path) -> None:
    variables = {"SNAPSYNC_STORE": f"file://{tmp_path}/store"}
    snapshot_id = host.snapctl("push", source, extra=variables).stdout.strip()
    variables |= {"SNAPSYNC_ID": snapshot_id, "SNAPSYNC_STANDALONE": "1"}
    ran = host.snapctl("pull", extra=variables)
    assert ran.code == 0, ran.stderr
    assert ran.stdout.strip().endswith(snapshot_id)


def test_events_are_one_document_a_line(host: Host, source: Path, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    snapshot_id = push(host, source, store)
    with host.daemon("--store", store):
        words = ("pull", "--id", snapshot_id, "--store", store, tmp_path / "dest", "--events")
        ran = host.snapctl(*words)
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert events[-2]["state"] == "done"
    assert events[-1]["event"] == "checkout"
    assert events[-1]["destination"] == str(tmp_path / "dest")
    assert {event["snapshot_id"] for event in events} == {snapshot_id}


def test_sigterm_stops_an_idle_daemon_at_once(host: Host) -> None:
    with host.daemon(config='[daemon]\nlisten = ""\ngrace_seconds = 600\n') as daemon:
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=READY_SECONDS) == 0
    assert not host.socket.exists()
