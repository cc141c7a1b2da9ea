from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapd.disk import stat_cache
from snapd.disk.hashing import Columns
from snapd.disk.listing import Lister, Listing
from snapd.disk.mounts import Mounts
from snapd.disk.stat_cache import Clock, Known, StatCache, Summary
from snapd.disk.tree_hash import TreeHash
from snapd.disk.walk import WalkedTree, WalkOptions, WalkProgress, identify, walk
from snapd.model.exclude import Excludes

SECOND_NS = 1_000_000_000
SETTLED_NS = 30_000_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take three ticks of the slowest kernel for long enough."""
    monkeypatch.setattr(stat_cache, "SETTLED_NS", SETTLED_NS)
    # Wherever temporary files are: an overlay in a container stamps these as well.
    monkeypatch.setattr(Mounts, "is_trusted", lambda mounts, device: True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "d/e").mkdir(parents=True)
    for name in ("a", "b", "d/a", "d/b", "d/e/a", "d.txt"):
        (root / name).write_bytes(name.ljust(10).encode())
    (root / "large").write_bytes(bytes(1 << 20))
    (tmp_path / "outside").write_bytes(b"outside")
    (root / "link").symlink_to("../outside")
    (root / "dirlink").symlink_to("d")
    return root


def settle(*_: object) -> None:
    """Wait until the clock that stamps files is past whatever was changed before."""
    begun = time.clock_gettime_ns(time.CLOCK_REALTIME)
    while time.clock_gettime_ns(time.CLOCK_REALTIME) < begun + SETTLED_NS + 10_000_000:
        os.sched_yield()


def cached(root: Path, **options: object) -> WalkOptions:
    return WalkOptions(jobs=1, stat_cache_dir=str(root.parent / "cache/stat"), **options)  # type: ignore[arg-type]


def walked(root: Path, options: WalkOptions | None = None) -> tuple[WalkedTree, int]:
    """Walk with the cache, and tell how many bytes were read."""
    seen: list[WalkProgress] = []
    tree = walk(root, options or cached(root), seen.append)
    return tree, seen[-1].bytes_hashed


def true_id(root: Path) -> str:
    return walk(root, WalkOptions(jobs=1)).manifest.id


def only_file(root: Path) -> Path:
    (file,) = (root.parent / "cache/stat").iterdir()
    return file


def test_second_walk_reads_nothing_and_finds_the_same(root: Path) -> None:
    settle()
    first, hashed_bytes = walked(root)
    assert hashed_bytes > 1 << 20
    second, nothing = walked(root)
    assert nothing == 0
    assert second.manifest.text == first.manifest.text
    assert second.facts == first.facts
    assert second.manifest.id == true_id(root)


def test_id_of_a_tree_that_is_known_needs_no_digest(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle()
    first = identify(root, cached(root))
    monkeypatch.setattr(Known, "load", lambda known: pytest.fail("read the columns"))
    assert identify(root, cached(root)) == first
    manifest = walk(root, WalkOptions()).manifest
    assert first == Summary(
        manifest.id, manifest.file_count, manifest.directory_count, manifest.total_bytes
    )


def test_only_what_changed_is_read(root: Path) -> None:
    settle()
    walked(root)
    (root / "d/a").write_bytes(b"other bytes")
    (root / "new").write_bytes(b"1")
    shutil.rmtree(root / "d/e")
    tree, hashed_bytes = walked(root)
    # The file is seen through the link to its directory as well.
    assert hashed_bytes == 2 * 11 + 1
    assert tree.manifest.id == true_id(root)


def test_directory_that_moved_takes_its_files_along(root: Path) -> None:
    settle()
    walked(root)
    (root / "d").rename(root / "z")
    (root / "dirlink").unlink()
    tree, hashed_bytes = walked(root)
    assert hashed_bytes == 0
    assert tree.manifest.id == true_id(root)


def rewritten(root: Path) -> None:
    """The same size, and the time of change put back."""
    status = (root / "a").stat()
    (root / "a").write_bytes(b"changed...")
    os.utime(root / "a", ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(root: Path) -> None:
    status = (root / "a").stat()
    (root / "new").write_bytes(b"replaced..")
    os.utime(root / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / "new").rename(root / "a")


def swapped(root: Path) -> None:
    (root / "a").rename(root / "t")
    (root / "b").rename(root / "a")
    (root / "t").rename(root / "b")


def relinked(root: Path) -> None:
    (root.parent / "0utside").write_bytes(b"0utside")
    (root / "link").unlink()
    (root / "link").symlink_to("../0utside")


def target_rewritten(root: Path) -> None:
    status = (root.parent / "outside").stat()
    (root.parent / "outside").write_bytes(b"OUTSIDE")
    os.utime(root.parent / "outside", ns=(status.st_atime_ns, status.st_mtime_ns))


def linked_into_its_place(root: Path) -> None:
    (root / "a").unlink()
    os.link(root / "b", root / "a")


def chmodded(root: Path) -> None:
    (root / "a").chmod(0o600)


def directory_chmodded(root: Path) -> None:
    (root / "d/e").chmod(0o700)


def directories_swapped(root: Path) -> None:
    shutil.copytree(root / "d/e", root / "f")
    (root / "f/a").write_bytes(b"other.....")
    (root / "d/e").rename(root / "t")
    (root / "f").rename(root / "d/e")
    (root / "t").rename(root / "f")


def turned_into_a_directory(root: Path) -> None:
    (root / "a").unlink()
    (root / "a").mkdir()


def renamed(root: Path) -> None:
    (root / "a").rename(root / "0")


def large_rewritten(root: Path) -> None:
    with (root / "large").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")


def nothing(root: Path) -> None:
    pass


CHANGES: list[Callable[[Path], None]] = [
    rewritten,
    replaced,
    swapped,
    relinked,
    target_rewritten,
    linked_into_its_place,
    chmodded,
    directory_chmodded,
    directories_swapped,
    turned_into_a_directory,
    renamed,
    large_rewritten,
    nothing,
]


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(root: Path, change: Callable[[Path], None], settled: bool) -> None:
    if settled:
        settle()
    before = identify(root, cached(root)).snapshot_id
    change(root)
    after = true_id(root)
    assert (before == after) == (change is nothing)
    for _ in range(2):
        assert identify(root, cached(root)).snapshot_id == after
        assert walked(root)[0].manifest.id == after
        if settled:
            settle()


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(
        st.one_of(
            st.just("settle"),
            st.just("walk"),
            st.tuples(st.sampled_from(["a", "b", "d/a", "d/e/a"]), st.binary(max_size=2)),
            st.tuples(st.sampled_from(["a", "b", "d/a"]), st.sampled_from(["b", "d/b", "d/e/a"])),
        ),
        max_size=12,
    )
)
def test_any_history_gives_the_true_id(tmp_path: Path, steps: list[object]) -> None:
    base = tmp_path / os.urandom(4).hex()
    root = base / "root"
    (root / "d/e").mkdir(parents=True)
    for name in ("a", "b", "d/a", "d/b", "d/e/a"):
        (root / name).write_bytes(b"00")
        os.utime(root / name, ns=(0, 0))
    for step in [*steps, "walk"]:
        if step == "settle":
            settle()
        elif step == "walk":
            assert identify(root, cached(root)).snapshot_id == true_id(root)
        elif isinstance(step, tuple) and isinstance(step[1], bytes):
            (root / step[0]).write_bytes(step[1].ljust(2, b"0"))
            os.utime(root / step[0], ns=(0, 0))
        elif isinstance(step, tuple) and (root / step[0]).exists():
            (root / step[0]).rename(root / step[1])


def test_changes_within_one_tick_are_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat_cache, "SETTLED_NS", 2 * SECOND_NS)
    for number in range(100):
        (root / "a").write_bytes(b"%010d" % number)
        os.utime(root / "a", ns=(0, 0))
        found = identify(root, cached(root)).snapshot_id
        if number % 10 == 0:
            assert found == true_id(root)
        (root / "a").write_bytes(b"%010d" % -(number + 1))
        os.utime(root / "a", ns=(0, 0))
        assert identify(root, cached(root)).snapshot_id != found
    assert identify(root, cached(root)).snapshot_id == true_id(root)


class FakeClock(Clock):
    """The real one, put forward or back."""

    day_ns = 0
    boot_ns = 0

    @classmethod
    def now_ns(cls) -> int:
        return time.clock_gettime_ns(time.CLOCK_REALTIME) + cls.day_ns

    @classmethod
    def uptime_ns(cls) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + cls.boot_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[FakeClock]:
    monkeypatch.setattr(stat_cache, "Clock", FakeClock)
    monkeypatch.setattr(FakeClock, "day_ns", 0)
    monkeypatch.setattr(FakeClock, "boot_ns", 0)
    return FakeClock


@pytest.mark.parametrize(
    ("day_ns", "boot_ns", "is_read_again"),
    [
        (0, 0, False),
        (3600 * SECOND_NS, 0, False),  # the clock was put forward
        (3600 * SECOND_NS, 3600 * SECOND_NS, False),  # an hour has passed
        (-SECOND_NS // 2, 0, False),  # less than what a change must be older
        (-3600 * SECOND_NS, 0, True),  # it was put back
        (0, 3600 * SECOND_NS, True),  # it was put back by the hour that has passed
    ],
)
def test_clock_that_was_put_back_makes_it_void(
    root: Path, clock: type[FakeClock], day_ns: int, boot_ns: int, is_read_again: bool
) -> None:
    settle()
    walked(root)
    clock.day_ns, clock.boot_ns = day_ns, boot_ns
    tree, hashed_bytes = walked(root)
    assert (hashed_bytes > 0) == is_read_again
    assert tree.manifest.id == true_id(root)


def test_file_from_the_future_is_read_every_time(root: Path, clock: type[FakeClock]) -> None:
    settle()
    clock.day_ns = -3600 * SECOND_NS
    assert walked(root)[1] == walked(root)[1] > 0


def test_file_that_just_changed_is_read_again_and_others_are_not(root: Path) -> None:
    settle()
    (root / "b").write_bytes(b"just now..")
    walked(root)
    assert walked(root)[1] == 10
    settle()
    assert walked(root)[1] == 10
    assert walked(root)[1] == 0


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_cache_is_as_good_as_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("damage") / "root"
    root.mkdir()
    for name in "abc":
        (root / name).write_bytes(name.encode())
    settle()
    first = walked(root)[0].manifest.id
    file = only_file(root)
    content = bytearray(file.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "grow"]))
    if kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content += b"\0"
    file.write_bytes(content)
    (root / "b").write_bytes(b"B")
    assert identify(root, cached(root)).snapshot_id == true_id(root) != first
    settle()
    walked(root)
    assert walked(root)[1] == 0


def forge(root: Path) -> str:
    """Write a cache that is wrong about a file; tell the ID that it makes."""
    settle()
    walked(root)
    only_file(root).unlink()

    class Forged(StatCache):
        def remember(self, listing: Listing, columns: Columns, summary: Summary) -> None:
            columns.digests[:32] = bytes(32)
            super().remember(listing, columns, Summary("f" * 64, *summary[1:]))

    directory_fd = os.open(root, os.O_RDONLY)
    try:
        cache = Forged.of(str(root.parent / "cache/stat"), directory_fd, repr((True, ())))
        assert cache is not None
        mode = root.stat().st_mode & 0o7777
        listing = Lister(
            str(root), directory_fd, follow=True, excludes=None, on_listed=lambda count: None
        ).run(mode)
    finally:
        os.close(directory_fd)
    directory_fd = os.open(root, os.O_RDONLY)
    try:
        tree = TreeHash(
            str(root),
            directory_fd,
            mode,
            follow=True,
            excludes=None,
            jobs=1,
            stat_cache_dir=None,
            on_progress=lambda *counts: None,
        )
        tree.run()
        cache.remember(listing, tree.columns, tree._sum_up(b""))
    finally:
        os.close(directory_fd)
    assert identify(root, cached(root)).snapshot_id == "f" * 64
    return "f" * 64


def others_directory(file: Path) -> None:
    os.chown(file.parent, 12345, 12345)


def others_file(file: Path) -> None:
    os.chown(file, 12345, 12345)


def writable_directory(file: Path) -> None:
    file.parent.chmod(0o777)


def writable_file(file: Path) -> None:
    file.chmod(0o666)


def linked_file(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to("../elsewhere")


@pytest.mark.parametrize(
    "spoil",
    [others_directory, others_file, writable_directory, writable_file, linked_file],
)
def test_cache_that_others_could_write_is_not_trusted(
    root: Path, spoil: Callable[[Path], None]
) -> None:
    if spoil in (others_directory, others_file) and os.geteuid() != 0:
        # Only root can make files of others; there, what others made is refused by the same line.
        return
    forge(root)
    spoil(only_file(root))
    assert identify(root, cached(root)).snapshot_id == true_id(root)


def test_cache_of_another_tree_is_not_taken(root: Path) -> None:
    settle()
    walked(root)
    file = only_file(root)
    shutil.copytree(root, root.parent / "copy", symlinks=True)
    (root.parent / "copy/a").write_bytes(b"of a copy.")
    identify(root.parent / "copy", cached(root))
    (other,) = set(file.parent.iterdir()) - {file}
    file.replace(other)
    assert identify(root.parent / "copy", cached(root)).snapshot_id == true_id(root.parent / "copy")


def test_cache_is_private(root: Path) -> None:
    walked(root)
    file = only_file(root)
    assert file.stat().st_mode & 0o7777 == 0o600
    assert file.parent.stat().st_mode & 0o7777 == 0o700
    assert file.parent.parent.stat().st_mode & 0o7777 == 0o700


def test_place_that_cannot_be_written_to_is_no_failure(root: Path) -> None:
    (root.parent / "cache").write_bytes(b"a file is in the way")
    assert identify(root, cached(root)).snapshot_id == true_id(root)


def test_tree_that_holds_the_cache_is_walked_without_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    options = WalkOptions(stat_cache_dir=str(tmp_path / "cache/stat"))
    assert identify(tmp_path, options) == identify(tmp_path, options)
    assert not (tmp_path / "cache").exists()


def test_ways_to_walk_have_caches_of_their_own(root: Path) -> None:
    settle()
    excludes = Excludes.compile([r"/root/d/"], home="/nowhere", cache_dir="/nowhere")
    ways = [cached(root), cached(root, follow=False), cached(root, excludes=excludes)]
    found = [walked(root, way)[0].manifest.id for way in ways]
    assert len(set(found)) == 3
    assert [walked(root, way)[0].manifest.id for way in ways] == found
    assert all(walked(root, way)[1] == 0 for way in ways)


def test_caches_of_a_user_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat_cache, "FILES_MAX", 3)
    place = root.parent / "cache/stat"
    for number in range(5):
        (root.parent / f"tree{number}").mkdir()
        identify(root.parent / f"tree{number}", cached(root))
        for file in place.iterdir():
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**9))
    assert len(list(place.iterdir())) == 3
    abandoned, current = place / ".abandoned", place / ".current"
    abandoned.touch()
    current.touch()
    os.utime(abandoned, (0, 0))
    identify(root, cached(root))
    assert current.exists()
    assert not abandoned.exists()
    monkeypatch.setattr(stat_cache, "TOTAL_MAX_BYTES", 1000)
    (root / "one-more").touch()
    identify(root, cached(root))
    identify(root.parent / "tree0", cached(root))
    assert sum(file.stat().st_size for file in place.iterdir()) <= 1000


def test_a_tree_too_large_is_not_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat_cache, "TOTAL_MAX_BYTES", 100)
    identify(root, cached(root))
    assert not (root.parent / "cache").exists()


def test_many_processes_may_use_it_at_once(root: Path) -> None:
    settle()
    expected = true_id(root)
    workers = []
    for _ in range(4):
        worker = os.fork()
        if worker == 0:
            status = 1
            try:
                ids = {identify(root, cached(root)).snapshot_id for _ in range(20)}
                status = int(ids != {expected})
            finally:
                os._exit(status)
        workers.append(worker)
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0] * 4
    assert walked(root)[1] == 0
    assert [file.name for file in (root.parent / "cache/stat").iterdir()] == [only_file(root).name]
