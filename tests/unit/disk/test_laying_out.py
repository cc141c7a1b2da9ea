"""Laying out with threads: progress now and then, no descriptor and no thread left."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from snapd.disk import fresh_files, fsops, laying_out
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
from snapd.model.errors import ActionFailed, TreeDiffers
from snapd.model.manifest import Manifest
from tests.trees import make_tree, manifest_of

COUNT = 5 * TASKS_WAITING_MAX
SIZE_BYTES = 100_000


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    files = {f"d{n % 3}/{n:02}": (0o644, os.urandom(SIZE_BYTES)) for n in range(COUNT)}
    return make_tree(tmp_path / "tree", files | {"small": (0o644, b"s")})


def lay_out(
    base: Path,
    manifest: Manifest,
    on_progress: OnProgress,
    mode: CheckoutMode = "copy",
    jobs: int = 1,
) -> CheckoutReport:
    options = CheckoutOptions(mode=mode, jobs=jobs)
    with (
        open_tree(base / "tree") as source,
        open_destination(base / "dest", 0o755) as target,
        LayingOut(manifest, source, target, options, on_progress) as run,
    ):
        run.lay_out_all()
        run.finish_directories()
        return run.report(())


def standing() -> frozenset[object]:
    """Give the descriptors and threads that there are; those of other tests may end meanwhile."""
    return frozenset(os.listdir("/proc/self/fd")) | frozenset(threading.enumerate())


def test_more_files_than_may_wait(tmp_path: Path, manifest: Manifest) -> None:
    before = standing()
    told: list[CheckoutProgress] = []

    report = lay_out(tmp_path, manifest, told.append)

    assert standing() <= before
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

    assert standing() <= before


def test_a_callback_may_interrupt(tmp_path: Path, manifest: Manifest) -> None:
    before = standing()

    def interrupt(progress: CheckoutProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out(tmp_path, manifest, interrupt)

    assert standing() <= before
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
    return refused


MIXED = {f"{n % 3}/{n:03}": (0o640 + n % 8, b"x" * (n % 5)) for n in range(200)}


@pytest.fixture(params=[1, 3])
def jobs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As many processes as there would be for many more files."""
    monkeypatch.setattr(laying_out, "FORKED_FILES_MIN", 0)
    monkeypatch.setattr(fresh_files, "_STRETCH_LINES_MIN", 7)
    monkeypatch.setattr(fresh_files, "_STRETCH_LINES_MAX", 20)
    return int(request.param)


@pytest.mark.usefixtures("sharing")
def test_many_files_share_their_blocks_side_by_side(tmp_path: Path, jobs: int) -> None:
    manifest, before = make_tree(tmp_path / "tree", MIXED | {"odd": (0o2755, b"!")}), standing()

    told: list[CheckoutProgress] = []
    report = lay_out(tmp_path, manifest, told.append, "reflink", jobs)

    assert standing() <= before
    assert (report.reflinked, report.copied) == (201, 0)
    assert told[-1].files_done == told[-1].files_total == 201
    assert {path.name for path in (tmp_path / "dest").iterdir()} == {"0", "1", "2", "odd"}
    assert manifest_of(tmp_path / "dest").file_count == 201
    for path, (mode, body) in MIXED.items():
        assert (tmp_path / "dest" / path).read_bytes() == body
        assert (tmp_path / "dest" / path).stat().st_mode & 0o7777 == mode


def test_what_suddenly_does_not_share_is_copied(
    tmp_path: Path, sharing: set[int], jobs: int
) -> None:
    manifest = make_tree(tmp_path / "tree", MIXED)
    sharing.add(3)
    report = lay_out(tmp_path, manifest, lambda _: None, "auto", jobs)
    assert report.copied >= 40
    assert report.reflinked > 0
    assert report.copied + report.reflinked == 200
    assert manifest_of(tmp_path / "dest").id == manifest.id


@pytest.mark.usefixtures("sharing")
def test_a_file_that_is_gone_from_the_tree_is_named(tmp_path: Path, jobs: int) -> None:
    manifest, before = make_tree(tmp_path / "tree", MIXED), standing()
    (tmp_path / "tree/2/101").rename(tmp_path / "101")
    with pytest.raises(TreeDiffers, match=r"\./2/101"):
        lay_out(tmp_path, manifest, lambda _: None, "reflink", jobs)
    assert standing() <= before
    left = {path.name for path in (tmp_path / "dest").iterdir()}
    assert left == {"0", "1", "2"}, "what is whole is not hidden"
    (tmp_path / "101").rename(tmp_path / "tree/2/101")
    report = lay_out(tmp_path, manifest, lambda _: None, "reflink", jobs)
    assert report.kept > 100
    assert report.kept + report.reflinked + report.copied == 200
    assert {path.name for path in (tmp_path / "dest").iterdir()} == {"0", "1", "2"}
    assert manifest_of(tmp_path / "dest").id == manifest.id


def test_links_are_made_side_by_side(tmp_path: Path, jobs: int) -> None:
    special = {"set": (0o4755, b"1"), "a/b/deep": (0o600, b"2"), "a-b": (0o644, b"3")}
    manifest, before = make_tree(tmp_path / "tree", MIXED | special), standing()
    (tmp_path / "dest").mkdir(mode=0o755)  # as a volume that is mounted there

    told: list[CheckoutProgress] = []
    report = lay_out(tmp_path, manifest, told.append, "hardlink", jobs)

    assert standing() <= before
    assert (report.linked, report.copied) == (203, 0)
    assert told[-1].files_done == told[-1].files_total == 203
    for path in MIXED | special:
        assert (tmp_path / "dest" / path).samefile(tmp_path / "tree" / path)


def test_what_came_in_between_is_replaced(tmp_path: Path, jobs: int) -> None:
    manifest = make_tree(tmp_path / "tree", MIXED)
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")

    with (
        open_tree(tmp_path / "tree") as source,
        open_destination(tmp_path / "dest", 0o755) as target,
        LayingOut(
            manifest, source, target, CheckoutOptions("hardlink", jobs=jobs), lambda _: None
        ) as run,
    ):
        (tmp_path / "dest/1").mkdir()
        (tmp_path / "dest/1/100").symlink_to(outside)
        run.lay_out_all()
        run.finish_directories()
    assert manifest_of(tmp_path / "dest").id == manifest.id
    assert outside.read_bytes() == b"outside"


def test_a_process_that_is_killed_ends_the_checkout(
    tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, before, own = make_tree(tmp_path / "tree", MIXED), standing(), os.getpid()

    def die_elsewhere(*what: Any) -> bool:
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return fresh_files.link_file(*what)

    monkeypatch.setattr(laying_out, "link_file", die_elsewhere)
    if jobs == 1:
        assert lay_out(tmp_path, manifest, lambda _: None, "hardlink", jobs).files == 200
        return
    with pytest.raises(ActionFailed, match="process"):
        lay_out(tmp_path, manifest, lambda _: None, "hardlink", jobs)
    assert standing() <= before
    monkeypatch.undo()
    lay_out(tmp_path, manifest, lambda _: None, "hardlink")
    assert manifest_of(tmp_path / "dest").id == manifest.id
