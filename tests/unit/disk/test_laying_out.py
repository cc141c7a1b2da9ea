"""Laying out with threads: progress now and then, no descriptor and no thread left."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from snapd.disk.destination import open_destination
from snapd.disk.laying_out import TASKS_WAITING_MAX, LayingOut
from snapd.disk.tree_source import open_tree
from snapd.model.checkouts import CheckoutOptions, CheckoutProgress, CheckoutReport, OnProgress
from snapd.model.errors import TreeDiffers
from snapd.model.manifest import Manifest
from tests.trees import make_tree, manifest_of

COUNT = 5 * TASKS_WAITING_MAX
SIZE_BYTES = 100_000


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    files = {f"d{n % 3}/{n:02}": (0o644, os.urandom(SIZE_BYTES)) for n in range(COUNT)}
    return make_tree(tmp_path / "tree", files | {"small": (0o644, b"s")})


def lay_out(base: Path, manifest: Manifest, on_progress: OnProgress) -> CheckoutReport:
    with (
        open_tree(base / "tree") as source,
        open_destination(base / "dest", 0o755) as target,
        LayingOut(manifest, source, target, CheckoutOptions(mode="copy"), on_progress) as run,
    ):
        run.lay_out_all()
        run.finish_directories()
        return run.report(())


def standing() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def test_more_files_than_may_wait(tmp_path: Path, manifest: Manifest) -> None:
    before = standing()
    told: list[CheckoutProgress] = []

    report = lay_out(tmp_path, manifest, told.append)

    assert standing() == before
    assert (report.copied, report.bytes_copied) == (COUNT + 1, COUNT * SIZE_BYTES + 1)
    assert manifest_of(tmp_path / "dest").id == manifest.id
    assert told[-1] == CheckoutProgress(COUNT + 1, COUNT + 1, COUNT * SIZE_BYTES + 1,
                                        COUNT * SIZE_BYTES + 1)  # fmt: skip
    assert told == sorted(told)


def test_nothing_is_left_running_after_a_failure(tmp_path: Path, manifest: Manifest) -> None:
    before = standing()
    (tmp_path / "tree/d1/10").unlink()

    with pytest.raises(TreeDiffers):
        lay_out(tmp_path, manifest, lambda _progress: None)

    assert standing() == before


def test_a_callback_may_interrupt(tmp_path: Path, manifest: Manifest) -> None:
    before = standing()

    def interrupt(progress: CheckoutProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out(tmp_path, manifest, interrupt)

    assert standing() == before
    assert not list((tmp_path / "dest").rglob(".snapsync-*"))
