"""Which snapshots a run uses: from notes of other commands, and from leases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from snapctl.client import Client
from snapctl.context import Context
from snapctl.in_use import LeaseWatch, Seen, given_tree, merged, read_notes
from snapctl.used import note_use
from snapd.disk.processes import mark_process
from snapd.model.errors import DaemonNotRunning
from snapd.model.leases import Lease, ProcessMark
from tests.unit.model.registering import snapshot

A, B, C = snapshot("a"), snapshot("b"), snapshot("c")


def test_what_commands_note_is_read(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    context = Context({"SNAPSYNC_RUN_DATA": str(notes)})
    note_use(context, A, path="/lost")
    assert read_notes(notes) == []
    notes.touch()
    note_use(context, A, reference="iris@v1.0.0")
    note_use(context, A, path="/trees/a", store="s3://b/x")
    note_use(context, B, path="", store=None)
    # That a name was looked up does not say that anybody uses it.
    note_use(context, C, reference="iris@v2.0.0")
    note_use(Context({}), C, path="/elsewhere")
    assert merged(read_notes(notes)) == [
        Seen(A, "/trees/a", "s3://b/x", "iris@v1.0.0", is_pulled=True),
        Seen(B),
    ]


def test_a_note_is_never_written_through_a_link(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.touch()
    link.symlink_to(victim)
    note_use(Context({"SNAPSYNC_RUN_DATA": str(link)}), A)
    assert victim.read_bytes() == b""


@pytest.mark.parametrize(
    "line", ["", "{", "[]", '{"snapshot_id": 3}', '{"snapshot_id": "x"}', "[" * 100_000, "\xff"]
)
def test_what_is_no_note_is_passed_over(tmp_path: Path, line: str) -> None:
    notes = tmp_path / "notes"
    notes.write_text(f"{line}\n{json.dumps({'snapshot_id': A})}\n", encoding="latin-1")
    assert read_notes(notes) == [Seen(A)]


def test_the_tree_that_exec_gave_is_in_use() -> None:
    assert given_tree({"SNAPSYNC_ID": A, "SNAPSYNC_TREE": f"/trees/{A}"}) == [
        Seen(A, path=f"/trees/{A}")
    ]
    for other in ({}, {"SNAPSYNC_ID": A}, {"SNAPSYNC_ID": "iris@v1", "SNAPSYNC_TREE": "/trees"}):
        assert given_tree(other) == []


class Daemon:
    """Answers for a daemon with these leases; None: for one that does not run."""

    def __init__(self, leases: list[Lease] | None) -> None:
        self._leases = leases

    def with_patience(self, _seconds: float) -> Daemon:
        return self

    def leases(self) -> list[Lease]:
        if self._leases is None:
            raise DaemonNotRunning("none")
        return self._leases


def lease(snapshot_id: Any, kind: Any, process: ProcessMark | None = None, **more: Any) -> Lease:
    return Lease("id", snapshot_id, kind, 0.0, process=process, **more)


def watched(leases: list[Lease] | None, environment: dict[str, str] | None = None) -> list[Seen]:
    client = cast(Client, Daemon(leases))
    watch = LeaseWatch(client, "run-1", environment or {})
    # A command that has ended before anybody got to look: it is looked all the same.
    watch._ended.set()
    with watch.running():
        pass
    return watch.seen()


def test_leases_of_this_process_and_of_its_ancestors_count() -> None:
    found = watched(
        [
            lease(A, "process", mark_process(os.getpid())),
            lease(B, "process", mark_process(os.getppid())),
            lease(C, "process", ProcessMark(1)),
        ]
    )
    assert found == [Seen(A), Seen(B)]


@pytest.mark.parametrize(("run_id", "counts"), [("run-1", True), ("run-10", False)])
def test_leases_of_processes_that_carry_the_run_s_id_count(run_id: str, counts: bool) -> None:
    process = subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, env={**os.environ, "SNAPSYNC_RUN_ID": run_id}
    )
    try:
        found = watched([lease(A, "process", mark_process(process.pid))])
        assert [each.snapshot_id for each in found] == ([A] if counts else [])
    finally:
        process.communicate()


def test_a_number_of_another_namespace_is_nobody_s() -> None:
    mark = ProcessMark(os.getpid(), pid_namespace="pid:[1]")
    assert watched([lease(A, "process", mark)]) == []


def test_leases_of_this_pod_count_and_others_do_not() -> None:
    mine, other = "0" * 32, "1" * 32
    leases = [lease(A, "pod", subject=mine), lease(B, "pod", subject=other), lease(C, "pin")]
    assert [each.snapshot_id for each in watched(leases, {"SNAPSYNC_POD_UID": mine})] == [A]
    assert watched(leases) == []


def test_no_signal_ends_up_where_leases_are_looked_at() -> None:
    blocked: list[set[int]] = []

    class Asked(Daemon):
        def leases(self) -> list[Lease]:
            blocked.append({*signal.pthread_sigmask(signal.SIG_BLOCK, ())})
            return []

    watch = LeaseWatch(cast(Client, Asked([])), "run-1", {})
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with watch.running():
        while not blocked:
            watch._ended.wait(0.01)
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1} <= blocked[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_without_a_daemon_nothing_is_held() -> None:
    assert watched(None) == []
