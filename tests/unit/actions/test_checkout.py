"""Checkout: what is laid out, what is kept, what is refused, and what stays untouched outside."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapd.actions.checkout import (
    CheckoutMode,
    CheckoutOptions,
    CheckoutProgress,
    CheckoutReport,
    checkout,
)
from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    DangerousDestination,
    DestinationBusy,
    NoSpace,
    TreeDiffers,
)
from snapd.model.exclude import Excludes
from snapd.model.manifest import Manifest
from tests.ordinary_user import as_ordinary_user, nobodys_directory
from tests.trees import Files, make_tree, manifest_of

BIG = os.urandom(300_000)
FILES: Files = {
    "a.txt": (0o644, b"hello"),
    "empty": (0o600, b""),
    "run.sh": (0o755, b"#!/bin/sh\n"),
    "sub/": (0o750, b""),
    "sub/x": (0o640, b"x" * 5000),
    "sub/deep/er/y": (0o444, b"y"),
    "sub-1/z": (0o644, b"hello"),
    "nothing here/": (0o700, b""),
    "big.bin": (0o644, BIG),
    "ünï/ç": (0o644, b"name"),
}


def lay_out(manifest: Manifest, tree: Path, dest: Path, **options: object) -> CheckoutReport:
    chosen = CheckoutOptions(**options)  # type: ignore[arg-type]  # any of its fields
    return checkout(manifest, tree, dest, chosen, lambda _progress: None)


def leftovers(root: Path) -> list[str]:
    return [name for _, dirs, files in os.walk(root) for name in dirs + files if "snapsync" in name]


def modes_of(root: Path, *paths: str) -> list[int]:
    """Read modes by names, from a directory that its owner closed to himself."""
    return [stat.S_IMODE((root / path).lstat().st_mode) for path in paths]


def with_modes(manifest: Manifest, modes: dict[str, int]) -> Manifest:
    return Manifest.from_entries(
        entry._replace(mode=modes.get(entry.path, entry.mode)) for entry in manifest
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / "cache" / "trees" / ("0" * 64), FILES)
    return tmp_path / "cache" / "trees" / ("0" * 64)


@pytest.fixture
def manifest(tree: Path) -> Manifest:
    return manifest_of(tree)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


@pytest.mark.parametrize("mode", ["auto", "hardlink", "copy"])
def test_gives_the_same_id(manifest: Manifest, tree: Path, dest: Path, mode: CheckoutMode) -> None:
    report = lay_out(manifest, tree, dest / "made" / "too", mode=mode)

    assert manifest_of(dest / "made" / "too").id == manifest.id
    assert (report.files, report.kept) == (manifest.file_count, 0)
    assert report.linked + report.reflinked + report.copied == manifest.file_count
    assert leftovers(dest) == []


@pytest.mark.parametrize("mode", ["auto", "hardlink", "copy"])
def test_keeps_what_is_right(
    manifest: Manifest, tree: Path, dest: Path, mode: CheckoutMode
) -> None:
    lay_out(manifest, tree, dest, mode=mode)
    before = {path: path.lstat().st_ino for path in dest.rglob("*")}

    report = lay_out(manifest, tree, dest, mode=mode)

    assert report.kept == manifest.file_count
    assert {path: path.lstat().st_ino for path in dest.rglob("*")} == before


def test_a_hard_link_shares_the_trees_inode_and_auto_does_not(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    lay_out(manifest, tree, dest / "hard", mode="hardlink")
    lay_out(manifest, tree, dest / "own")

    assert (dest / "hard/a.txt").samefile(tree / "a.txt")
    assert not (dest / "own/a.txt").samefile(tree / "a.txt")
    (dest / "own/a.txt").write_bytes(b"mine")
    assert (tree / "a.txt").read_bytes() == b"hello"


def test_auto_over_a_hard_linked_checkout_makes_it_private(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    lay_out(manifest, tree, dest, mode="hardlink")

    report = lay_out(manifest, tree, dest)

    assert report.kept == 0
    assert not (dest / "a.txt").samefile(tree / "a.txt")
    assert manifest_of(dest).id == manifest.id


def test_repairs_wrong_bytes_of_the_right_size_and_wrong_modes(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    lay_out(manifest, tree, dest)
    (dest / "a.txt").write_bytes(b"HELLO")
    (dest / "big.bin").write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
    (dest / "run.sh").chmod(0o600)
    (dest / "sub").chmod(0o777)

    report = lay_out(manifest, tree, dest)

    assert manifest_of(dest).id == manifest.id
    assert report.kept == manifest.file_count - 2


def test_symlinks_in_the_place_of_entries_are_replaced_and_never_followed(
    manifest: Manifest, tree: Path, dest: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o711)
    (outside / "file").write_bytes(b"outside")
    (outside / "file").chmod(0o600)
    dest.mkdir()
    (dest / "sub").symlink_to(outside)
    (dest / "a.txt").symlink_to(outside / "file")
    (dest / "empty").symlink_to("dangling")

    lay_out(manifest, tree, dest, delete=True)

    assert manifest_of(dest).id == manifest.id
    assert sorted(os.listdir(outside)) == ["file"]
    assert stat.S_IMODE(outside.stat().st_mode) == 0o711
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o600
    assert (outside / "file").read_bytes() == b"outside"


def test_a_right_file_that_is_a_hard_link_of_one_outside_is_replaced(
    manifest: Manifest, tree: Path, dest: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"hello")
    victim.chmod(0o600)
    dest.mkdir()
    (dest / "a.txt").hardlink_to(victim)

    lay_out(manifest, tree, dest)

    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert victim.stat().st_nlink == 1
    assert manifest_of(dest).id == manifest.id


def test_types_change_in_both_directions(manifest: Manifest, tree: Path, dest: Path) -> None:
    (dest / "a.txt" / "was" / "a").mkdir(parents=True)
    (dest / "a.txt" / "was" / "b").write_bytes(b"b")
    (dest / "a.txt" / "was").chmod(0o555)
    (dest / "sub").write_bytes(b"was a file")
    os.mkfifo(dest / "run.sh")
    (dest / "big.bin").mkdir()

    lay_out(manifest, tree, dest)

    assert manifest_of(dest).id == manifest.id
    assert leftovers(dest) == []


def test_without_delete_what_is_not_listed_stays(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    (dest / "sub").mkdir(parents=True)
    (dest / "sub" / "mine").write_bytes(b"mine")

    lay_out(manifest, tree, dest)

    assert (dest / "sub" / "mine").read_bytes() == b"mine"


def test_delete_makes_an_exact_mirror(
    manifest: Manifest, tree: Path, dest: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (dest / "old" / "er").mkdir(parents=True)
    (dest / "old" / "er" / "f").touch()
    (dest / "old" / "er").chmod(0o555)
    (dest / "sub").mkdir()
    (dest / "sub" / "link").symlink_to(outside)
    (dest / os.fsdecode(b"bad-\xff")).touch()

    report = lay_out(manifest, tree, dest, delete=True)

    assert manifest_of(dest).id == manifest.id
    assert (outside / "kept").exists()
    assert report.deleted == (
        os.fsdecode(b"./bad-\xff"),
        "./old/er/f",
        "./old/er/",
        "./old/",
        "./sub/link",
    )


def test_exclude_protects_from_deletion(manifest: Manifest, tree: Path, dest: Path) -> None:
    (dest / "runs" / "1").mkdir(parents=True)
    (dest / "runs" / "1" / "log").touch()
    (dest / "scrap").mkdir()
    (dest / "scrap" / "keep.log").touch()
    (dest / "scrap" / "other").touch()
    exclude = Excludes.compile([r"^\./runs$", r"\.log$"], home="/", cache_dir="/")

    report = lay_out(manifest, tree, dest, delete=True, exclude=exclude)

    assert report.deleted == ("./scrap/other",)
    assert (dest / "runs" / "1" / "log").exists()
    assert (dest / "scrap" / "keep.log").exists()


def test_a_dry_run_names_changes_and_deletions_and_writes_nothing(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    lay_out(manifest, tree, dest)
    (dest / "a.txt").write_bytes(b"HELLO")
    (dest / "run.sh").chmod(0o700)
    (dest / "empty").unlink()
    (dest / "sub/deep/er/y").unlink()
    (dest / "sub/deep/er").rmdir()
    (dest / "extra").mkdir()
    (dest / "extra" / "f").touch()
    before = {path: path.lstat() for path in [dest, *dest.rglob("*")]}

    report = lay_out(manifest, tree, dest, delete=True, dryrun=True)

    assert [(change.status, change.path) for change in report.changes] == [
        ("M", "./a.txt"),
        ("A", "./empty"),
        ("M", "./run.sh"),
        ("A", "./sub/deep/er/"),
        ("A", "./sub/deep/er/y"),
    ]
    assert report.deleted == ("./extra/f", "./extra/")
    after = {path: path.lstat() for path in [dest, *dest.rglob("*")]}
    assert {path: (s.st_mode, s.st_ino, s.st_mtime_ns) for path, s in after.items()} == {
        path: (s.st_mode, s.st_ino, s.st_mtime_ns) for path, s in before.items()
    }


def test_a_dry_run_to_nowhere_names_everything_and_makes_nothing(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    report = lay_out(manifest, tree, dest / "x", delete=True, dryrun=True)

    assert len(report.changes) == len(manifest)
    assert {change.status for change in report.changes} == {"A"}
    assert not dest.exists()


def test_read_only_directories_are_no_obstacle_to_their_owner() -> None:
    closed = {"./": 0o500, "./d/": 0o555, "./d/e/": 0o000, "./d/f": 0o000}

    def update(base: Path) -> None:
        make_tree(base / "1", {"d/e/g": (0o644, b"1"), "d/f": (0o644, b"1"), "d/f2": (0o644, b"")})
        make_tree(base / "2", {"d/f": (0o644, b"22"), "g": (0o644, b"3")})
        first = with_modes(manifest_of(base / "1"), closed)
        second = with_modes(manifest_of(base / "2"), closed)
        for mode in ("copy", "copy"):
            lay_out(first, base / "1", base / "dest", mode=mode)
        lay_out(second, base / "2", base / "dest", delete=True)
        assert modes_of(base / "dest", "", "d", "d/f") == [0o500, 0o555, 0o000]
        assert sorted(os.listdir(base / "dest/d")) == ["f"]
        report = lay_out(second, base / "2", base / "dest", delete=True)
        assert report.kept == 2

    with nobodys_directory() as base:
        as_ordinary_user(lambda: update(base))


@pytest.mark.parametrize("as_root", [False, True])
def test_set_uid_bits_are_dropped_unless_asked_for(tmp_path: Path, as_root: bool) -> None:
    manifest = make_tree(tmp_path / "t", {"su": (0o4755, b"su"), "g/": (0o2775, b"")})

    report = lay_out(manifest, tmp_path / "t", tmp_path / "dest", keep_setid=as_root)

    mode = stat.S_IMODE((tmp_path / "dest/su").stat().st_mode)
    assert mode == (0o4755 if as_root else 0o755)
    assert (manifest_of(tmp_path / "dest").id == manifest.id) == as_root
    assert [("./su" in warning) for warning in report.warnings] == ([] if as_root else [True])


def test_a_hard_linked_checkout_never_gives_the_tree_special_bits(tmp_path: Path) -> None:
    manifest = make_tree(tmp_path / "t", {"su": (0o4755, b"su")})
    (tmp_path / "t/su").chmod(0o755)

    lay_out(manifest, tmp_path / "t", tmp_path / "d", mode="hardlink", keep_setid=True)

    assert stat.S_IMODE((tmp_path / "t/su").stat().st_mode) == 0o755
    assert manifest_of(tmp_path / "d").id == manifest.id


def test_names_of_255_bytes(tmp_path: Path) -> None:
    manifest = make_tree(tmp_path / "t", {"n" * 255: (0o644, b"x"), "d" * 255 + "/": (0o755, b"")})
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / ("n" * 255)).write_bytes(b"old")

    lay_out(manifest, tmp_path / "t", tmp_path / "dest")

    assert manifest_of(tmp_path / "dest").id == manifest.id


def test_a_symlink_checkout_is_one_link_replaced_in_one_step(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    dest.symlink_to("/nowhere")

    report = lay_out(manifest, tree, dest, mode="symlink")

    assert report.mode == "symlink"
    assert os.readlink(dest) == str(tree)
    assert os.listdir(dest.parent).count("dest") == 1
    assert leftovers(dest.parent) == []


def test_a_symlink_checkout_replaces_nothing_but_links_and_empty_directories(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    dest.mkdir()
    lay_out(manifest, tree, dest, mode="symlink")
    assert dest.is_symlink()
    for path in (dest.parent / "full", dest.parent / "file"):
        if path.name == "full":
            (path / "x").mkdir(parents=True)
        else:
            path.touch()
        with pytest.raises(DangerousDestination, match=path.name):
            lay_out(manifest, tree, path, mode="symlink")


def test_a_symlink_checkout_is_replaced_by_a_real_one_without_touching_the_tree(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    lay_out(manifest, tree, dest, mode="symlink")

    lay_out(manifest, tree, dest, mode="copy", delete=True)

    assert not dest.is_symlink()
    assert manifest_of(dest).id == manifest_of(tree).id == manifest.id


def test_any_other_link_or_file_as_destination_is_refused(
    manifest: Manifest, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_bytes(b"mine")
    for name in ("link", "file"):
        for dryrun in (False, True):
            with pytest.raises(DangerousDestination, match=name):
                lay_out(manifest, tree, tmp_path / name, dryrun=dryrun)
    assert os.listdir(tmp_path / "real") == []
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_dangerous_destinations_are_refused_after_resolving_links(
    manifest: Manifest, tree: Path, tmp_path: Path
) -> None:
    home, store = tmp_path / "home", tmp_path / "store"
    for path in (home / "data", store / ".objects"):
        path.mkdir(parents=True)
    (tmp_path / "way").symlink_to(store)
    refused = [
        Path("/"),
        tmp_path,
        home,
        home.parent,
        store,
        store / ".objects" / "x",
        tmp_path / "way" / "new",
        tmp_path / "home" / ".." / "store",
        tree,
        tree / "sub",
        tree.parent,
    ]
    for dest in refused:
        for mode in ("copy", "symlink"):
            with pytest.raises(DangerousDestination):
                lay_out(manifest, tree, dest, mode=mode, protected=(store,), home=home)

    lay_out(manifest, tree, home / "data", delete=True, protected=(store,), home=home)

    assert manifest_of(home / "data").id == manifest.id
    assert os.listdir(store) == [".objects"]


def test_one_checkout_at_a_time(manifest: Manifest, tree: Path, dest: Path) -> None:
    dest.mkdir()
    fd = os.open(dest, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(DestinationBusy, match=str(dest)):
        lay_out(manifest, tree, dest)
    os.close(fd)

    lay_out(manifest, tree, dest)


def test_leftovers_of_a_killed_checkout_are_removed(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    (dest / "sub").mkdir(parents=True)
    (dest / "sub" / ".snapsync-0123abcd").write_bytes(b"half")
    (dest / ".snapsync-89abcdef" / "d").mkdir(parents=True)
    (dest / ".snapsync-not-ours").touch()

    lay_out(manifest, tree, dest)

    assert leftovers(dest) == [".snapsync-not-ours"]


def test_a_listed_file_may_have_a_name_like_half_done_work(tmp_path: Path) -> None:
    manifest = make_tree(tmp_path / "t", {".snapsync-0123abcd": (0o644, b"x")})

    for _ in range(2):
        lay_out(manifest, tmp_path / "t", tmp_path / "dest")

    assert manifest_of(tmp_path / "dest").id == manifest.id


def test_a_tree_that_lacks_a_file_or_lies_is_an_error_that_names_it(
    manifest: Manifest, tree: Path, dest: Path
) -> None:
    (tree / "a.txt").write_bytes(b"HELLO")
    with pytest.raises(TreeDiffers, match=r"\./a\.txt"):
        lay_out(manifest, tree, dest, verify=True)
    (tree / "a.txt").unlink()
    for mode in ("copy", "hardlink"):
        with pytest.raises(TreeDiffers, match=r"\./a\.txt"):
            lay_out(manifest, tree, dest, mode=mode)
    with pytest.raises(TreeDiffers, match="no tree"):
        lay_out(manifest, tree / "none", dest)
    assert not (dest / "a.txt").exists()
    assert leftovers(dest) == []


def test_an_error_in_a_worker_thread_ends_the_checkout_and_leaves_no_half_file(
    tmp_path: Path,
) -> None:
    files: Files = {f"f{number:02}": (0o644, os.urandom(200_000)) for number in range(40)}
    manifest = make_tree(tmp_path / "t", files)
    (tmp_path / "t/f20").write_bytes(bytes(200_000))

    with pytest.raises(TreeDiffers, match=r"\./f20"):
        lay_out(manifest, tmp_path / "t", tmp_path / "dest", verify=True)

    assert leftovers(tmp_path / "dest") == []
    assert all(path.read_bytes() == files[path.name][1] for path in (tmp_path / "dest").iterdir())


def test_what_is_in_progress_is_private(tmp_path: Path) -> None:
    manifest = make_tree(
        tmp_path / "t", {"d/": (0o755, b""), "d/f": (0o644, b"1"), "d/g": (0o644, BIG)}
    )
    dest = tmp_path / "dest"
    (dest / "d").mkdir(parents=True)
    dest.chmod(0o777)
    seen: set[tuple[int, int]] = set()

    def look(_progress: CheckoutProgress) -> None:
        seen.add((stat.S_IMODE(dest.stat().st_mode), stat.S_IMODE((dest / "d").stat().st_mode)))

    narrow = make_tree(tmp_path / "narrow", {"d/": (0o700, b""), "d/f": (0o644, b"1")})
    checkout(narrow, tmp_path / "narrow", dest, CheckoutOptions(), look)
    assert seen <= {(0o755, 0o755), (0o755, 0o700)}
    assert (0o755, 0o700) in seen

    seen.clear()
    checkout(manifest, tmp_path / "t", dest, CheckoutOptions(), look)
    assert seen == {(0o755, 0o700)}
    assert manifest_of(dest).id == manifest.id


def test_progress_ends_with_everything_done(manifest: Manifest, tree: Path, dest: Path) -> None:
    told: list[CheckoutProgress] = []

    checkout(manifest, tree, dest, CheckoutOptions(), told.append)

    assert told[-1] == CheckoutProgress(
        manifest.file_count, manifest.file_count, manifest.total_bytes, manifest.total_bytes
    )


def test_a_full_disk_is_no_space() -> None:
    def fill(base: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        manifest = make_tree(base / "t", {"big.bin": (0o644, BIG), "a": (0o644, b"a")})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(NoSpace, match=r"big\.bin"):
            lay_out(manifest, base / "t", base / "dest", mode="copy")
        assert leftovers(base / "dest") == []
        assert os.listdir(base / "dest") == ["a"]

    with nobodys_directory() as base:
        as_ordinary_user(lambda: fill(base))


def test_a_destination_that_is_not_writable_is_named() -> None:
    with nobodys_directory() as base:
        make_tree(base / "t", {"f": (0o644, b"x")})
        (base / "closed").mkdir(mode=0o755)

        def try_it() -> None:
            if (base / "closed").stat().st_uid == os.geteuid():
                (base / "closed").chmod(0o555)
            with pytest.raises(AccessDenied, match="closed"):
                lay_out(manifest_of(base / "t"), base / "t", base / "closed" / "dest")

        as_ordinary_user(try_it)


@pytest.mark.parametrize("private", ["f", "d"])
def test_what_only_the_owner_of_the_cache_may_read_is_named(private: str) -> None:
    with nobodys_directory() as base:
        manifest = make_tree(base / "t", {"f": (0o644, b"x"), "d/f": (0o644, b"y")})
        (base / "t" / private).chmod(0)

        def lay() -> None:
            with pytest.raises(AccessDenied, match=rf"you may not read \./{private}"):
                lay_out(manifest, base / "t", base / "dest")

        as_ordinary_user(lay)


def test_the_root_of_a_foreign_volume_keeps_its_mode_with_a_warning() -> None:
    if os.geteuid() != 0:
        return
    with nobodys_directory() as base:
        manifest = make_tree(base / "t", {"f": (0o644, b"x")})
        (base / "volume").mkdir()
        (base / "volume").chmod(0o777)

        def lay() -> None:
            report = lay_out(manifest, base / "t", base / "volume")
            assert (base / "volume" / "f").read_bytes() == b"x"
            assert ["./" in warning for warning in report.warnings] == [True]

        as_ordinary_user(lay)


def test_a_link_across_mounts_names_the_destination(
    manifest: Manifest, tree: Path, tmp_path: Path
) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        other = Path("/tmp")
    if other.stat().st_dev == tmp_path.stat().st_dev:
        return
    dest = other / f"snapsync-test-{os.getpid()}"
    try:
        with pytest.raises(ActionFailed, match=str(dest)):
            lay_out(manifest, tree, dest, mode="hardlink")
    finally:
        for path in sorted(dest.rglob("*"), reverse=True):
            path.rmdir()
        dest.rmdir()


Node = tuple[int, bytes | dict[str, "Node"]]

names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\n\r\0"), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
modes = st.integers(0, 0o777)
nodes: st.SearchStrategy[Node] = st.recursive(
    st.tuples(modes, st.binary(max_size=64)),
    lambda children: st.tuples(modes, st.dictionaries(names, children, max_size=4)),
    max_leaves=12,
)
versions = st.lists(
    st.tuples(modes, st.dictionaries(names, nodes, max_size=4)), min_size=1, max_size=3
)


def write(path: Path, node: Node) -> None:
    mode, content = node
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
        for name, child in content.items():
            write(path / name, child)
    path.chmod(mode)


@settings(max_examples=40, deadline=None)
@given(snapshots=versions, mode=st.sampled_from(["copy", "hardlink"]))
def test_any_version_over_any_other_gives_its_id(snapshots: list[Node], mode: CheckoutMode) -> None:
    with nobodys_directory() as base:
        for number, snapshot in enumerate(snapshots):
            tree = base / str(number)
            write(tree, snapshot)
            manifest = manifest_of(tree)
            lay_out(manifest, tree, base / "dest", mode=mode, delete=True)
            assert manifest_of(base / "dest").id == manifest.id
            assert manifest_of(tree).id == manifest.id
