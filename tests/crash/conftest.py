"""Fixtures of the crash tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.living import Living
from tests.crash.nursery import Nursery, open_nursery

MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 1024**3
"""More than a daemon leaves free, many times what these tests write, and not all that there is."""


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Give the process that daemons and commands are forked from."""
    with open_nursery() as opened:
        yield opened


@pytest.fixture
def forked(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what lives and dies be forked, for tests of many lives; see `tests/crash/nursery.py`."""
    monkeypatch.setattr(Living, "nursery", nursery)


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """Give a directory in memory, where there is room, for tests that write and sync without end.

    A process that is killed leaves in any file system what it wrote, whether it was synced or not;
    that calls are made, and in which order, is what is proven here, and disks only take longer.
    """
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM_BYTES:
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(prefix="snapsync-crash-", dir=MEMORY))
    yield directory
    for closed, _, _ in os.walk(directory):
        os.chmod(closed, 0o700)
    shutil.rmtree(directory)
