"""A store written by one tool is read by the other, and the IDs agree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.installed import Host, files_below, write_files

FILES = {
    "a": b"alpha",
    "empty": b"",
    "dir/b": b"beta" * 1000,
    "dir/copy of a": b"alpha",
    "dir/deep/er/c": bytes(range(256)) * 800,
    "dir-with/ä and # and %": b"names",
    "big.bin": bytes(range(251)) * 100_000,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = write_files(tmp_path / "source", FILES)
    (directory / "a").chmod(0o600)
    (directory / "dir" / "b").chmod(0o755)
    (directory / "empty dir").mkdir()
    (directory / "dir" / "deep").chmod(0o555)
    return directory


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_store: Callable[[], str]) -> str:
    return f"file://{tmp_path}/store" if request.param == "file" else s3_store()


def modes_below(directory: Path) -> dict[str, int]:
    return {
        os.fspath(path.relative_to(directory)): path.stat().st_mode & 0o7777
        for path in directory.rglob("*")
    }


def test_pushed_by_snapdir_and_pulled_by_us(
    cloud_host: Host, source: Path, store: str, tmp_path: Path
) -> None:
    if store.startswith("file"):
        Path(store.removeprefix("file://")).mkdir()
    theirs = cloud_host.snapdir("push", source, store)
    assert cloud_host.snapctl("id", source).stdout.strip() == theirs
    dest = tmp_path / "dest"
    with cloud_host.daemon("--store", store):
        ran = cloud_host.snapctl("pull", "--id", theirs, "--store", store, dest)
    assert ran.code == 0, ran.stderr
    assert files_below(dest) == FILES
    assert modes_below(dest) == modes_below(source)
    assert cloud_host.snapctl("id", dest).stdout.strip() == theirs
    assert cloud_host.snapdir("id", dest) == theirs


def test_pushed_by_us_and_pulled_by_snapdir(
    cloud_host: Host, source: Path, store: str, tmp_path: Path
) -> None:
    pushed = cloud_host.snapctl("push", source, "--store", store)
    assert pushed.code == 0, pushed.stderr
    snapshot_id = pushed.stdout.strip()
    assert snapshot_id == cloud_host.snapdir("id", source)
    dest = tmp_path / "dest"
    cloud_host.snapdir("pull", snapshot_id, store, dest)
    assert files_below(dest) == FILES
    assert modes_below(dest) == modes_below(source)
    assert cloud_host.snapdir("verify", snapshot_id, store) == "True"


def test_we_verify_what_snapdir_pushed(cloud_host: Host, source: Path, store: str) -> None:
    if store.startswith("file"):
        Path(store.removeprefix("file://")).mkdir()
    theirs = cloud_host.snapdir("push", source, store)
    ran = cloud_host.snapctl("verify", "--id", theirs, "--store", store)
    assert ran.code == 0, ran.stderr
