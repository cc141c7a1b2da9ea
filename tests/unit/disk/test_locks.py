from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from snapd.disk.locks import opening_lock, snapshot_lock
from snapd.model.ids import SnapshotId

ONE, TWO = SnapshotId("1" * 64), SnapshotId("2" * 64)


def test_one_at_a_time_for_one_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    with snapshot_lock(path, ONE):
        assert not snapshot_lock(path, ONE).try_acquire()
        other = snapshot_lock(path, TWO)
        assert other.try_acquire()
        other.release()
        with opening_lock(path):
            pass
    again = snapshot_lock(path, ONE)
    assert again.try_acquire()
    again.release()
    again.release()


def test_waiting_ends_with_the_release(tmp_path: Path) -> None:
    first, second = (snapshot_lock(tmp_path / "locks", ONE) for _ in range(2))
    first.acquire()
    got_it = threading.Event()

    def wait() -> None:
        with second:
            got_it.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not got_it.is_set()
    first.release()
    waiter.join(10)
    assert got_it.is_set()


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from snapd.disk.locks import snapshot_lock\n"
        "lock = snapshot_lock(Path(sys.argv[1]), '1' * 64); assert lock.try_acquire()\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    path = tmp_path / "locks"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert not snapshot_lock(path, ONE).try_acquire()
        child.kill()
        child.wait()
    lock = snapshot_lock(path, ONE)
    assert lock.try_acquire()
    lock.release()
