"""Which snapshots a running command uses: what its `snapctl`s note, and the leases it holds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread

from snapctl.client import Client
from snapd.disk.processes import pid_namespace
from snapd.model.errors import SnapsyncError
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.leases import Lease
from snapd.model.runs import USES_MAX

_LOOK_SECONDS_MIN = 1.0
_LOOK_SECONDS_MAX = 15.0
_LOOKS_LATER_BY = 1.2
_SILENCE_SECONDS = 5.0
_NOTES_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """A snapshot that is in use, and what is known of it; `store` None: nobody said."""

    snapshot_id: SnapshotId
    path: str | None = None
    store: str | None = None
    reference: str | None = None
    is_pulled: bool = False
    """It was pulled from that store onto this node, which proved it."""
    is_used: bool = True
    """False: a reference led to it, and whether anybody reads it is not known."""


class LeaseWatch:
    """Looks at the daemon's leases now and then, for those that belong to one run.

    They are the leases of processes that have the run's ID in their environment, of this process
    and its ancestors, and of this pod. A daemon that does not answer has none.
    """

    def __init__(self, client: Client, run_id: str, environment: Mapping[str, str]) -> None:
        self._client = client.with_patience(_SILENCE_SECONDS)
        self._mark = f"SNAPSYNC_RUN_ID={run_id}".encode()
        self._pod = environment.get("SNAPSYNC_POD_UID", "")
        self._ended = Event()
        self._found: dict[SnapshotId, None] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look during the block, in a thread of its own; once even if it ends before that."""
        thread = Thread(target=self._run, name="leases", daemon=True)
        # It inherits what is blocked: no signal that is meant for the command may end up there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            yield
        finally:
            self._ended.set()
            thread.join(_SILENCE_SECONDS)

    def seen(self) -> list[Seen]:
        """Name what was held."""
        return [Seen(snapshot_id) for snapshot_id in list(self._found)[:USES_MAX]]

    def _run(self) -> None:
        pause_seconds = _LOOK_SECONDS_MIN
        while True:
            self._look()
            if self._ended.wait(pause_seconds):
                return
            pause_seconds = min(_LOOK_SECONDS_MAX, pause_seconds * _LOOKS_LATER_BY)

    def _look(self) -> None:
        with suppress(SnapsyncError, OSError, ValueError):
            for lease in self._client.leases():
                if self._is_ours(lease):
                    self._found[lease.snapshot_id] = None

    def _is_ours(self, lease: Lease) -> bool:
        if lease.kind == "pod":
            return bool(self._pod) and lease.subject == self._pod
        if lease.kind != "process" or lease.process is None:
            return False
        if lease.process.pid_namespace not in ("", pid_namespace()):
            return False
        return lease.process.pid in _ancestors() or self._is_marked(lease.process.pid)

    def _is_marked(self, pid: int) -> bool:
        with suppress(OSError):
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False


def given_tree(environment: Mapping[str, str]) -> list[Seen]:
    """Name the snapshot on which `snapctl exec` runs this command."""
    snapshot_id, tree = (environment.get(f"SNAPSYNC_{name}", "") for name in ("ID", "TREE"))
    if not is_digest(snapshot_id) or os.path.basename(tree) != snapshot_id:
        return []
    return [Seen(SnapshotId(snapshot_id), path=tree)]


def read_notes(path: Path) -> list[Seen]:
    """Read what `note_use` wrote; what is no note is passed over."""
    try:
        with path.open("rb") as file:
            lines = file.read(_NOTES_MAX_BYTES).splitlines()
    except OSError:
        return []
    return [seen for line in lines if (seen := _read_note(line)) is not None]


def merged(seen: list[Seen]) -> list[Seen]:
    """Bring what is known of each snapshot in use together; what was said last counts."""
    found: dict[SnapshotId, Seen] = {}
    for each in seen:
        known = found.get(each.snapshot_id, each)
        found[each.snapshot_id] = replace(
            known,
            path=each.path or known.path,
            store=each.store or known.store,
            reference=each.reference or known.reference,
            is_pulled=each.is_pulled or known.is_pulled,
            is_used=each.is_used or known.is_used,
        )
    return [each for each in found.values() if each.is_used]


def _read_note(line: bytes) -> Seen | None:
    try:
        note = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(note, dict) or not all(isinstance(each, str) for each in note.values()):
        return None
    snapshot_id = note.get("snapshot_id", "")
    if not is_digest(snapshot_id):
        return None
    store = note.get("store")
    return Seen(
        SnapshotId(snapshot_id),
        note.get("path"),
        store,
        note.get("reference"),
        is_pulled=store is not None,
        is_used=set(note) != {"snapshot_id", "reference"},
    )


def _ancestors() -> set[int]:
    """Name this process and those that started it, but for the first."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            pid = int(stat.rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return found
