"""A daemon with little memory: large objects and a manifest of a million entries."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from snapd.model.ids import Digest, SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.manifest import directory_checksum
from tests.crash.living import starting
from tests.e2e.installed import BIN, Host
from tests.servers.seaweed import Seaweed

MIB: Final = 1024 * 1024
LARGE_BYTES: Final = 256 * MIB
LARGE_LIMIT_BYTES: Final = 256 * MIB
DIRECTORIES: Final = 1000
FILES_IN_EACH: Final = 1000
OBJECTS: Final = 32
MILLION_LIMIT_BYTES: Final = 512 * MIB
OWN_DISK_BYTES: Final = 4096 * MIB
"""Ten times what a million names take, and what a daemon leaves free; most of it is a hole."""

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limited:
    """A way to run a command with so much memory, and to ask whether it was too little."""

    prefix: tuple[str, ...]
    group: Path | None

    def was_killed_for_memory(self) -> bool:
        if self.group is None:
            return False
        for name in ("memory.oom_control", "memory.events"):
            with suppress(FileNotFoundError):
                words = (self.group / name).read_text(encoding="ascii").split()
                return words[words.index("oom_kill") + 1] != "0"
        return False


@contextmanager
def limited(size_bytes: int) -> Iterator[Limited]:
    """Limit memory by a control group, page cache included; without the right to make one, by
    a limit of the process's data."""
    for parent, limit in ((V1, "memory.limit_in_bytes"), (V2, "memory.max")):
        group = parent / f"snapsync-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(size_bytes), encoding="ascii")
        except OSError:
            group.rmdir()
            continue
        script = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
        try:
            yield Limited(("sh", "-c", script, "sh", str(group)), group)
        finally:
            group.rmdir()
        return
    yield Limited(("sh", "-c", f'ulimit -d {size_bytes // 1024} && exec "$@"', "sh"), None)


def write_large(path: Path, seed: int) -> None:
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(LARGE_BYTES // MIB):
            file.write(b"%08d%08d" % (seed, number))
            file.write(block[16:])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_large_objects_with_little_memory(
    tmp_path: Path, seaweed: Seaweed, seaweed_bucket: str
) -> None:
    host = Host(tmp_path / "host", seaweed.environment())
    source, store = tmp_path / "source", f"s3://{seaweed_bucket}/crash/memory"
    source.mkdir()
    for number in range(2):
        write_large(source / str(number), number)
    try:
        pushed = host.snapctl("push", source, "--store", store)
        assert pushed.code == 0, pushed.stderr
        snapshot_id = SnapshotId(pushed.stdout.strip())
        with limited(LARGE_LIMIT_BYTES) as memory:
            with starting(host, "", [*memory.prefix, str(BIN / "snapd")]) as living:
                view = living.pull(snapshot_id, store)
                assert view.state == "done", view.error
                assert living.process.poll() is None
            assert not memory.was_killed_for_memory()
        # Every byte was hashed on its way; the links say that the tree holds the same files.
        sizes = {path.name: path.stat().st_size for path in Path(view.tree).iterdir()}
        assert sizes == {"0": LARGE_BYTES, "1": LARGE_BYTES}
    finally:
        shutil.rmtree(source)
        shutil.rmtree(host.cache, ignore_errors=True)


def million(store: Path) -> SnapshotId:
    """Write a snapshot of a million files that share a few objects; give its ID."""
    bodies = [b"object %d" % number for number in range(OBJECTS)]
    digests = [digest_of(body) for body in bodies]
    for digest, body in zip(digests, bodies, strict=True):
        path = store / object_key(digest)
        path.parent.mkdir(parents=True)
        path.write_bytes(body)
    sizes = [len(body) for body in bodies]
    files = [number % OBJECTS for number in range(FILES_IN_EACH)]
    checksum, size_bytes = directory_checksum(digests), sum(sizes[file] for file in files)
    tails = [f"F 644 {digests[o]} {sizes[o]} ./%s/f{n:06}\n" for n, o in enumerate(files)]
    below = "".join([f"D 755 {checksum} {size_bytes} ./%s/\n", *tails])
    names = [f"d{number:04}" for number in range(DIRECTORIES)]
    root: Digest = directory_checksum([checksum])
    head = f"D 755 {root} {size_bytes * DIRECTORIES} ./\n"
    text = (head + "".join(below.replace("%s", name) for name in names)).encode()
    snapshot_id = SnapshotId(digest_of(text))
    path = store / manifest_key(snapshot_id)
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    return snapshot_id


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system in a file: with it a million names go at once, and not one by one.

    Removing them takes a third as long as making them, and for as long as the journal needs to
    digest it everything else on the disk waits. Where nothing can be mounted so, it is a directory.
    """
    image, place = tmp_path / "disk.image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(OWN_DISK_BYTES)
    commands = (
        ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)],
        ["mount", "-o", "loop,noinit_itable", str(image), str(place)],
    )
    mounted = all(_succeeds(command) for command in commands)
    yield place
    if mounted:
        subprocess.run(["umount", str(place)], check=True)
    image.unlink()


def _succeeds(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_entries_with_little_memory(own_disk: Path) -> None:
    host, store = Host(own_disk / "host"), own_disk / "store"
    snapshot_id = million(store)
    try:
        with limited(MILLION_LIMIT_BYTES) as memory:
            with starting(host, "", [*memory.prefix, str(BIN / "snapd")]) as living:
                view = living.pull(snapshot_id, f"file://{store}")
                assert view.state == "done", view.error
                assert living.process.poll() is None
            assert not memory.was_killed_for_memory()
        tree = Path(view.tree)
        assert len(os.listdir(tree)) == DIRECTORIES
        assert len(os.listdir(tree / "d0999")) == FILES_IN_EACH
        assert (tree / "d0999/f000999").read_bytes() == b"object %d" % (999 % OBJECTS)
    finally:
        if not own_disk.is_mount():
            shutil.rmtree(own_disk)
