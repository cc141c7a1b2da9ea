"""SIGKILL of a checkout at every step that changes the file system, and what the next one finds."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from snapd.actions.checkout import CheckoutMode, CheckoutOptions, CheckoutReport, checkout
from snapd.disk import fresh_files, fsops, laying_out
from snapd.model.checkouts import CheckoutProgress
from snapd.model.manifest import Manifest
from tests.trees import Files, make_tree, manifest_of

STEPS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod"}

OLD: Files = {
    "kept": (0o644, b"the same in both"),
    "changed": (0o644, b"old"),
    "was a file": (0o644, b"old"),
    "was a directory/below/f": (0o644, b"old"),
    "closed/": (0o555, b""),
    "closed/f": (0o444, b"old"),
    "gone/": (0o555, b""),
    "gone/f": (0o444, b"old"),
    "narrowed/": (0o755, b""),
}
NEW: Files = {
    "kept": (0o644, b"the same in both"),
    "changed": (0o600, b"new"),
    "large": (0o640, b"n" * 200_000),
    "was a file/below/": (0o750, b""),
    "was a directory": (0o644, b"new"),
    "closed/": (0o555, b""),
    "closed/f": (0o444, b"new"),
    "narrowed/": (0o700, b""),
    "narrowed/secret": (0o644, b"new"),
}


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files seem to share blocks wherever this runs; there is a step before they do."""

    def reflink(src_fd: int, dst_fd: int) -> bool:
        sys.audit("os.chmod", "an empty file is there")
        fsops.copy(src_fd, dst_fd)
        return True

    monkeypatch.setattr(fsops, "reflink", reflink)


def run_until(step: int, work: tuple[Manifest, Path, Path, CheckoutMode]) -> int:
    """Run a checkout in a child that kills itself before its `step`-th change; 0: it ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        steps = iter(range(1, step))

        def kill_at_last(event: str, _arguments: tuple[object, ...]) -> None:
            if event in STEPS and next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill_at_last)
        try:
            lay_out(*work)
        except BaseException:  # noqa: BLE001 - a child of a test never returns into pytest
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def lay_out(manifest: Manifest, tree: Path, dest: Path, mode: CheckoutMode) -> CheckoutReport:
    options = CheckoutOptions(mode=mode, delete=True)
    return checkout(manifest, tree, dest, options, lambda _progress: None)


def files_below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in sorted(root.rglob("*")):
        yield str(path.relative_to(root)), path.lstat()


def assert_nothing_half_visible(dest: Path, tree: Path) -> None:
    new = dict(files_below(tree))
    for name, found in files_below(dest):
        if ".snapsync-" in name:
            continue
        content = (dest / name).read_bytes() if stat.S_ISREG(found.st_mode) else b""
        versions = [files.get(name, (0, b""))[1] for files in (OLD, NEW)]
        assert content in versions, name
        if content and content == NEW.get(name, (0, b""))[1]:
            expected = new[name].st_mode
            assert found.st_mode & ~expected & 0o077 == 0, name
    secret, narrowed = dest / "narrowed/secret", dest / "narrowed"
    assert not secret.exists() or stat.S_IMODE(narrowed.stat().st_mode) == 0o700


@pytest.mark.usefixtures("sharing")
@pytest.mark.parametrize("mode", ["copy", "hardlink", "reflink"])
def test_killed_anywhere_it_shows_nothing_half_done_and_resumes(
    quick_path: Path, mode: CheckoutMode
) -> None:
    tree, old, dest = quick_path / "tree", quick_path / "old", quick_path / "dest"
    manifest = make_tree(tree, NEW)
    make_tree(old, OLD)
    outside = quick_path / "outside"
    outside.write_bytes(b"outside")
    for step in count(1):
        shutil.copytree(old, dest)
        (dest / "link").symlink_to(outside)

        code = run_until(step, (manifest, tree, dest, mode))

        assert code in (0, -signal.SIGKILL)
        assert_nothing_half_visible(dest, tree)
        report = lay_out(manifest, tree, dest, mode)
        assert manifest_of(dest).id == manifest_of(tree).id == manifest.id
        assert outside.read_bytes() == b"outside"
        shutil.rmtree(dest)
        if code == 0:
            assert report.kept == manifest.file_count
            break
    assert step > 40, "the steps were not seen"


@pytest.mark.usefixtures("sharing")
@pytest.mark.parametrize("mode", ["copy", "hardlink", "reflink"])
def test_killed_anywhere_a_new_destination_stays_closed_to_others(
    quick_path: Path, mode: CheckoutMode
) -> None:
    tree, dest = quick_path / "tree", quick_path / "dest"
    manifest = make_tree(tree, NEW)
    kept = set()
    for step in count(1):
        code = run_until(step, (manifest, tree, dest, mode))

        if code == 0:
            break
        if dest.exists() and mode_of(dest) != 0o700:
            assert [name for name, _ in files_below(dest) if ".snapsync-" in name] == []
            assert manifest_of(dest).id == manifest.id
        report = lay_out(manifest, tree, dest, mode)
        kept.add(report.kept)
        assert manifest_of(dest).id == manifest.id
        shutil.rmtree(dest)
    assert kept >= {0, 1, manifest.file_count}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("sharing")
@pytest.mark.parametrize("mode", ["hardlink", "reflink"])
def test_what_it_forked_ends_with_it(
    quick_path: Path, mode: CheckoutMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laying_out, "FORKED_FILES_MIN", 0)
    monkeypatch.setattr(fresh_files, "_STRETCH_LINES_MIN", 10)
    tree, dest = quick_path / "tree", quick_path / "dest"
    manifest = make_tree(tree, {f"{n % 40:02}/{n}": (0o644, b"x") for n in range(800)})
    options = CheckoutOptions(mode=mode, jobs=3)

    def die(progress: CheckoutProgress) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        checkout(manifest, tree, dest, options, die)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    if mode == "reflink":
        assert [path.name[:10] for path in dest.iterdir()] == [".snapsync-"]

    checkout(manifest, tree, dest, options, lambda _progress: None)

    assert manifest_of(dest).id == manifest.id
    assert len(list(dest.iterdir())) == 40
