from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from snapd.disk.walk import WalkedTree, WalkOptions, WalkProgress, walk
from snapd.model.errors import SnapsyncError, SourceChanged, SourceUnfit
from snapd.model.exclude import Excludes
from snapd.model.ids import digest_of
from tests.ordinary_user import nobodys_directory
from tests.unit.disk.processes import children
from tests.unit.disk.trees import build

VECTORS = json.loads(
    (Path(__file__).parents[2] / "data/vectors/public.json").read_text(encoding="utf-8")
)


def excluding(*patterns: str) -> Excludes:
    return Excludes.compile(patterns, home="/home/nobody", cache_dir="/nowhere")


def hash_in_workers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the worker processes after the first batch, however little there is to do."""
    monkeypatch.setattr("snapd.disk.tree_hash._INLINE_SECONDS", 0)
    monkeypatch.setattr("snapd.disk.tree_hash.WORKERS_FROM_SECONDS", 0)


def paths(tree: WalkedTree) -> list[str]:
    return [entry.path for entry in tree.manifest]


def remove_deep(top: Path) -> None:
    """Remove what is too deep for shutil and for the kernel's longest path."""
    subprocess.run(["rm", "-rf", str(top)], check=True)


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_vector_is_walked_byte_for_byte(case: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "tree"
    build(root, case["tree"])
    patterns = [pattern.replace("{ROOT}", str(root)) for pattern in case["exclude"]]
    # Patterns are searched in absolute paths, which must not match by accident.
    assert not any("test_vector" in pattern for pattern in case["exclude"])

    tree = walk(root, WalkOptions(follow=case["follow"], excludes=excluding(*patterns)))

    assert tree.manifest.text.decode() == case["manifest"] + "\n"
    assert tree.manifest.id == case["id"]


def test_spellings_of_the_root_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/f").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    ids = {
        walk(Path(spelt)).manifest.id for spelt in ("x", "./x", "x/", "./x/", f"{tmp_path}/x/../x")
    }
    monkeypatch.chdir(tmp_path / "x")
    ids |= {walk(Path(spelt)).manifest.id for spelt in ("", ".")}
    assert len(ids) == 1


@pytest.mark.parametrize("follow", [True, False])
def test_root_that_is_a_link_shows_the_mode_of_the_link(tmp_path: Path, follow: bool) -> None:
    build(tmp_path / "real", [{"path": "f", "type": "file", "text": "1"}])
    (tmp_path / "link").symlink_to("real")
    tree = walk(tmp_path / "link", WalkOptions(follow=follow))
    assert tree.manifest.id == "d0bb5a7991818a62f52f1d9480d01a184859556a0579c3dfa993538f1fe31f03"


def test_root_of_the_file_system_has_paths_with_a_slash() -> None:
    # Everything but one directory is excluded, so that this takes no time.
    tree = walk(Path("/"), WalkOptions(follow=False, excludes=excluding("^/[^/]+/", "^/[^eb]")))
    assert "./etc/" in paths(tree)


@pytest.mark.parametrize("root", ["missing", "file", "file/below", "nul\0"])
def test_root_that_is_no_directory_is_refused_by_name(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceUnfit) as refused:
        walk(tmp_path / root)
    assert repr(str(tmp_path / root)) in refused.value.message


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"x\ny", r"x\ny"),
        (b"z\nF 4755 " + b"5" * 64 + b" 5 evil", r"z\nF 4755"),
        (b"x\r", r"x\r"),
        (b"\xff\xfe", r"\udcff\udcfe"),
    ],
)
def test_name_that_the_format_cannot_carry_is_refused(
    tmp_path: Path, name: bytes, shown: str
) -> None:
    (tmp_path / "d").mkdir()
    os.close(os.open(os.fsencode(tmp_path / "d") + b"/" + name, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(SourceUnfit) as refused:
        walk(tmp_path)
    assert f"/d/{shown}" in refused.value.message
    assert "\n" not in refused.value.message
    # What is excluded need not be carried.
    assert paths(walk(tmp_path, WalkOptions(excludes=excluding("/d/.")))) == ["./", "./d/"]


def test_directory_name_may_end_in_cr(tmp_path: Path) -> None:
    (tmp_path / "d\r").mkdir()
    assert paths(walk(tmp_path)) == ["./", "./d\r/"]


def test_links_without_a_readable_target_are_not_listed(tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    (root / "keep").write_bytes(b"k")
    (root / "dangling").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    (root / "through-a-file").symlink_to("keep/child")
    (root / "too-long").symlink_to("x" * 300)
    (root / "device").symlink_to("/dev/null")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        assert paths(walk(root)) == ["./", "./keep"]


def test_link_has_its_own_mode_and_size_and_the_content_of_its_target(tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    (tmp_path / "ü").write_bytes(b"0123456789")
    (root / "l").symlink_to("../ü")
    tree = walk(root)
    entry = tree.manifest[1]
    assert (entry.path, entry.mode, entry.size_bytes) == ("./l", 0o777, 5)
    assert entry.checksum == digest_of(b"0123456789")
    assert (tree.facts.sizes[0], tree.facts.links[0]) == (10, 1)
    assert tree.facts.inodes[0] == (tmp_path / "ü").stat().st_ino


@pytest.mark.parametrize(
    ("link", "target"), [("a/up", ".."), ("a/here", "."), ("a/b/c/top", "../../../../r")]
)
def test_cycle_through_a_link_is_refused_by_name(tmp_path: Path, link: str, target: str) -> None:
    root = tmp_path / "r"
    (root / "a/b/c").mkdir(parents=True)
    (root / link).symlink_to(target)
    with pytest.raises(SourceUnfit) as refused:
        walk(root)
    assert repr(f"{root}/{link}") in refused.value.message
    assert "--no-follow" in refused.value.hint
    assert "./a/b/c/" in paths(walk(root, WalkOptions(follow=False)))


def test_cycle_that_closes_below_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r/a").mkdir(parents=True)
    (tmp_path / "r/a/out").symlink_to(tmp_path)
    with pytest.raises(SourceUnfit) as refused:
        walk(tmp_path / "r")
    assert "/r/a/out/r'" in refused.value.message


def test_two_links_to_the_same_directory_are_no_cycle(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"")
    (tmp_path / "l1").symlink_to("d")
    (tmp_path / "l2").symlink_to("l1")
    assert paths(walk(tmp_path)) == ["./", "./d/", "./d/f", "./l1/", "./l1/f", "./l2/", "./l2/f"]


def test_more_links_in_a_row_than_the_kernel_follows(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"d{number:02d}").mkdir()
        if number:
            (tmp_path / f"d{number:02d}/n").symlink_to(f"../d{number - 1:02d}")
    (tmp_path / "d00/end").write_bytes(b"")
    top = tmp_path / "top"
    top.mkdir()
    (top / "n").symlink_to("../d59")
    found = paths(walk(top))
    assert found[-1] == "./" + "n/" * 60 + "end"


def test_ten_thousand_levels(tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    try:
        for level in range(10_000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
            if level % 1000 == 999:
                os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
                os.mkdir("e", dir_fd=here)
        tree = walk(top, WalkOptions(jobs=1))
        assert tree.manifest.directory_count == 10_011
        assert tree.manifest[len(tree.manifest) - 1].path == "./" + "d/" * 1000 + "f"
    finally:
        os.close(here)
        remove_deep(top)


def walked_as_ordinary_user(root: Path) -> str:
    """Walk in a process that can't read everything as root can; tell the paths or the error."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            told = " ".join(paths(walk(root)))
        except SnapsyncError as error:
            told = f"{error.code}: {error.message}"
        finally:
            os.write(write_end, told.encode())
            os._exit(0)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return told


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that any user can reach, which pytest's own are not."""
    with nobodys_directory() as path:
        yield path


def test_unreadable_file_is_named(open_path: Path) -> None:
    (open_path / "file").touch(mode=0)
    told = walked_as_ordinary_user(open_path)
    assert told == f"access_denied: cannot read '{open_path}/file': Permission denied"


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400])
def test_unreadable_directory_is_named(open_path: Path, mode: int) -> None:
    (open_path / "closed").mkdir()
    (open_path / "closed/file").touch()
    (open_path / "closed").chmod(mode)
    told = walked_as_ordinary_user(open_path)
    (open_path / "closed").chmod(0o755)
    assert told.startswith("access_denied: ")
    assert f"'{open_path}/closed/" in told


def test_unreadable_root_is_named(open_path: Path) -> None:
    root = open_path / "root"
    root.mkdir(mode=0)
    assert walked_as_ordinary_user(root).startswith(f"access_denied: cannot read '{root}'")


def test_link_to_what_may_not_be_searched_is_as_good_as_dangling(open_path: Path) -> None:
    root, closed = open_path / "root", open_path / "closed"
    root.mkdir()
    (root / "file").touch()
    (closed / "inner").mkdir(parents=True)
    (root / "link").symlink_to("../closed/inner")
    closed.chmod(0)
    told = walked_as_ordinary_user(root)
    closed.chmod(0o755)
    assert told == "./ ./file"


def test_file_without_a_true_size_counts_as_changing(tmp_path: Path) -> None:
    (tmp_path / "status").symlink_to("/proc/self/status")
    with pytest.raises(SourceChanged) as changed:
        walk(tmp_path)
    assert repr(str(tmp_path / "status")) in changed.value.message


@pytest.mark.parametrize("size_bytes", [10, 3_000_000])
@pytest.mark.parametrize("replaced_by", ["nothing", "fifo", "link", "directory"])
def test_file_that_vanishes_or_is_replaced_is_named(
    tmp_path: Path, size_bytes: int, replaced_by: str
) -> None:
    target = tmp_path / "r/busy"
    target.parent.mkdir()
    target.write_bytes(bytes(size_bytes))
    is_large = size_bytes > 1_000_000

    def replace(progress: WalkProgress) -> None:
        if not target.is_file() or is_large != (progress.files_total > 0):
            return
        target.rename(tmp_path / "aside")
        if replaced_by == "fifo":
            os.mkfifo(target)
        elif replaced_by == "link":
            target.symlink_to("../aside")
        elif replaced_by == "directory":
            target.mkdir()

    with pytest.raises(SourceChanged) as changed:
        walk(tmp_path / "r", on_progress=replace)
    assert repr(str(target)) in changed.value.message


def test_facts_are_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    for name in ("b/x", "b/a/y", "b.txt", "a", "c"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    tree = walk(tmp_path)
    files = [entry.path for entry in tree.manifest if entry.kind == "F"]
    assert files == ["./a", "./b.txt", "./b/a/y", "./b/x", "./c"]
    for number, file in enumerate(files):
        assert tree.facts.same(number, (tmp_path / file).stat())
    (tmp_path / "b/x").write_bytes(b"other")
    assert not tree.facts.same(3, (tmp_path / "b/x").stat())


def test_workers_and_large_files_give_the_same_as_inline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1600):
        path = tmp_path / f"d{number % 7}/f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % number * (number % 50))
    for number in range(6):
        (tmp_path / f"d{number}/large").write_bytes(os.urandom(2**20 + number))
    inline = walk(tmp_path, WalkOptions(jobs=1))
    hash_in_workers_at_once(monkeypatch)
    seen: list[WalkProgress] = []
    parallel = walk(tmp_path, WalkOptions(jobs=3), seen.append)
    assert parallel.manifest.text == inline.manifest.text
    assert parallel.facts == inline.facts
    assert seen[-1] == WalkProgress(1613, 1606, 1606, inline.manifest.total_bytes)
    assert all(progress.bytes_hashed >= 0 for progress in seen)


def test_stopping_a_walk_leaves_no_process_and_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1500):
        (tmp_path / f"f{number}").write_bytes(b"%d" % number)
    hash_in_workers_at_once(monkeypatch)
    descriptors = len(os.listdir("/proc/self/fd"))
    before = children()

    class StopError(Exception):
        pass

    def stop(progress: WalkProgress) -> None:
        if progress.files_hashed > 256:
            raise StopError

    with pytest.raises(StopError):
        walk(tmp_path, WalkOptions(jobs=2), stop)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert children() == before


def test_unreadable_file_in_a_worker_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1200):
        (tmp_path / f"a{number}").touch()
    (tmp_path / "f").symlink_to("/proc/self/status")
    hash_in_workers_at_once(monkeypatch)
    with pytest.raises(SourceChanged) as changed:
        walk(tmp_path, WalkOptions(jobs=2))
    assert repr(str(tmp_path / "f")) in changed.value.message


@pytest.mark.parametrize("workers", [False, True])
def test_sha256_of_every_file_comes_from_the_same_read_as_its_checksum(
    tmp_path: Path, workers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if workers:
        hash_in_workers_at_once(monkeypatch)
    files = {f"d{number % 7}/{number}": str(number).encode() for number in range(600)}
    files |= {"large": bytes(range(256)) * 8192, "z/large": b"z" * 3_000_001, "empty": b""}
    for name, data in files.items():
        path = tmp_path / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "t/link").symlink_to("large")
    files["link"] = files["large"]
    cache = tmp_path / "cache"
    walk(tmp_path / "t", WalkOptions(stat_cache_dir=str(cache)))

    tree = walk(tmp_path / "t", WalkOptions(sha256=True, jobs=2, stat_cache_dir=str(cache)))

    names = [entry.path[2:] for entry in tree.manifest if entry.kind == "F"]
    assert sorted(names) == sorted(files)
    assert tree.sha256 == b"".join(sha256(files[name]).digest() for name in names)
    assert tree.manifest == walk(tmp_path / "t").manifest
    assert walk(tmp_path / "t").sha256 == b""
