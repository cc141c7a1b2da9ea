"""Laying out with threads: progress now and then, no descriptor and no thread left."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from snapd.disk import fsops, laying_out
from snapd.disk.destination import open_destination
from snapd.disk.laying_out import TASKS_WAITING_MAX, LayingOut
from snapd.disk.tree_source import open_tree
from snapd.model.checkouts import (
    CheckoutMode,
    CheckoutOptions,
    CheckoutProgress,
    CheckoutReport,
    OnProgress,
)
from snapd.model.errors import TreeDiffers
from snapd.model.manifest import Manifest
from tests.trees import make_tree, manifest_of

COUNT = 5 * TASKS_WAITING_MAX
SIZE_BYTES = 100_000


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    files = {f"d{n % 3}/{n:02}": (0o644, os.urandom(SIZE_BYTES)) for n in range(COUNT)}
    return make_tree(tmp_path / "tree", files | {"small": (0o644, b"s")})


def lay_out(
    base: Path, manifest: Manifest, on_progress: OnProgress, mode: CheckoutMode = "copy"
) -> CheckoutReport:
    with (
        open_tree(base / "tree") as source,
        open_destination(base / "dest", 0o755) as target,
        LayingOut(manifest, source, target, CheckoutOptions(mode=mode), on_progress) as run,
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


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Let files seem to share blocks wherever the test runs, all but those of some sizes."""
    refused: set[int] = set()

    def reflink(src_fd: int, dst_fd: int) -> bool:
        if os.fstat(src_fd).st_size in refused:
            return False
        fsops.copy(src_fd, dst_fd)
        return True

    monkeypatch.setattr(fsops, "reflink", reflink)
    monkeypatch.setattr(laying_out, "BATCH_FILES_MAX", 7)
    return refused


MIXED = {f"{n % 3}/{n:03}": (0o640 + n % 8, b"x" * (n % 5)) for n in range(200)}


@pytest.mark.usefixtures("sharing")
def test_many_files_share_their_blocks_in_batches(tmp_path: Path) -> None:
    manifest, before = make_tree(tmp_path / "tree", MIXED | {"odd": (0o2755, b"!")}), standing()

    told: list[CheckoutProgress] = []
    report = lay_out(tmp_path, manifest, told.append, "reflink")

    assert standing() == before
    assert (report.reflinked, report.copied) == (161, 40)
    assert told[-1].files_done == told[-1].files_total == 201
    assert {path.name for path in (tmp_path / "dest").iterdir()} == {"0", "1", "2", "odd"}
    assert manifest_of(tmp_path / "dest").file_count == 201
    for path, (mode, body) in MIXED.items():
        assert (tmp_path / "dest" / path).read_bytes() == body
        assert (tmp_path / "dest" / path).stat().st_mode & 0o7777 == mode


def test_what_suddenly_does_not_share_is_copied(tmp_path: Path, sharing: set[int]) -> None:
    manifest = make_tree(tmp_path / "tree", MIXED)
    sharing.add(3)
    report = lay_out(tmp_path, manifest, lambda _: None, "auto")
    assert report.copied > 40
    assert report.copied + report.reflinked == 200
    assert manifest_of(tmp_path / "dest").id == manifest.id


@pytest.mark.usefixtures("sharing")
def test_a_file_that_is_gone_from_the_tree_is_named(tmp_path: Path) -> None:
    manifest, before = make_tree(tmp_path / "tree", MIXED), standing()
    (tmp_path / "tree/2/101").unlink()
    with pytest.raises(TreeDiffers, match=r"\./2/101"):
        lay_out(tmp_path, manifest, lambda _: None, "reflink")
    assert standing() == before
    assert not (tmp_path / "dest/2/101").exists()
    assert not list((tmp_path / "dest").rglob(".snapsync-*"))
