"""A destination: where it really is, taken over and locked; one step from old to new."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from snapd.disk.destination import (
    TEMPORARY,
    look,
    look_at_destination,
    open_destination,
    path_error,
    place,
    replace_by_link,
    resolve_destination,
    temporary_name,
)
from snapd.model.errors import ActionFailed, DangerousDestination, DestinationBusy, NoSpace


def test_resolves_the_way_but_not_the_destination_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to("real")

    assert resolve_destination(tmp_path / "way" / "new") == tmp_path / "real" / "new"
    assert resolve_destination(tmp_path / "way") == tmp_path / "way"
    assert resolve_destination(tmp_path / "way" / "..") == tmp_path
    assert resolve_destination(Path()) == Path.cwd()


def test_temporary_names_are_short_and_differ() -> None:
    names = {temporary_name() for _ in range(100)}

    assert len(names) == 100
    assert all(TEMPORARY.fullmatch(name) for name in names)


def test_a_new_directory_is_private_and_only_one_may_have_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with open_destination(path, 0o755) as target:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert target.is_fresh(b"anything/")
        with pytest.raises(DestinationBusy), open_destination(path, 0o755):
            pass
    (path / "other").touch()
    with open_destination(path, 0o755) as target:
        assert not target.is_fresh(b"anything/")


def test_directories_are_fresh_until_the_next_old_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "z").symlink_to("old")
    with open_destination(tmp_path, 0o755) as target:
        for directory, fresh in (
            (b"a/", True),
            (b"a/b/", True),
            (b"old/", False),
            (b"old/new/", True),
            (b"z/", True),
        ):
            target.ensure_directory(directory, 0o755)
            assert target.is_fresh(directory) is fresh
            target.remove_leftovers(directory, lambda _path: False)
    assert not (tmp_path / "z").is_symlink()
    assert os.listdir(tmp_path / "old") == ["new"]


def test_an_old_directory_keeps_only_what_it_may_keep(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o777)
    (tmp_path / "d").chmod(0o577)
    with open_destination(tmp_path, 0o755) as target:
        target.ensure_directory(b"d/", 0o550)
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
        assert target.finish_directory(b"d/", 0o550)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o550


@pytest.mark.parametrize("old", ["nothing", "file", "link", "directory", "full directory", "fifo"])
def test_place_replaces_anything(tmp_path: Path, old: str) -> None:
    target = tmp_path / "name"
    if old == "file":
        target.write_bytes(b"old")
    elif old == "link":
        target.symlink_to("elsewhere")
    elif old == "fifo":
        os.mkfifo(target)
    elif "directory" in old:
        target.mkdir()
        if old.startswith("full"):
            (target / "below").mkdir()
            target.chmod(0o555)
    fd = os.open(tmp_path, os.O_RDONLY)

    place(fd, b"name", lambda new: os.close(os.open(new, os.O_CREAT | os.O_EXCL, dir_fd=fd)))

    os.close(fd)
    assert os.listdir(tmp_path) == ["name"]
    assert target.is_file()
    assert target.read_bytes() == b""


def test_place_leaves_everything_as_it_was_if_making_fails(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"old")
    fd = os.open(tmp_path, os.O_RDONLY)

    def make(new: bytes) -> None:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL, dir_fd=fd))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place(fd, b"name", make)
    os.close(fd)
    assert os.listdir(tmp_path) == ["name"]
    assert (tmp_path / "name").read_bytes() == b"old"


def test_looking_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with look_at_destination(tmp_path / "none") as target:
        assert target is None
    with pytest.raises(DangerousDestination), look_at_destination(tmp_path / "link"):
        pass
    with look_at_destination(tmp_path) as target:
        assert target is not None
        found = look(target.root_fd, b"link")
        assert found is not None
        assert stat.S_ISLNK(found.st_mode)
    assert os.listdir(tmp_path) == ["link"]


def test_a_link_makes_its_parents(tmp_path: Path) -> None:
    replace_by_link(tmp_path / "a" / "link", tmp_path)

    assert os.readlink(tmp_path / "a" / "link") == str(tmp_path)


def test_an_error_names_the_path() -> None:
    full = path_error(OSError(errno.ENOSPC, "full"), Path("/d"), "./a/b")
    across = path_error(OSError(errno.EXDEV, "across"), Path("/d"), "./a/b")

    assert isinstance(full, NoSpace)
    assert "/d/a/b" in full.message
    assert isinstance(across, ActionFailed)
    assert "/d" in across.message
    assert "./a/b" in across.message


def test_what_is_aside_settles_in_one_step_each(tmp_path: Path) -> None:
    with open_destination(tmp_path / "d", 0o755) as target:
        target.step_aside()
        target.ensure_directory(b"a/", 0o755)
        target.ensure_directory(b"a/b/", 0o755)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=target.at(b"")))
        (aside,) = (tmp_path / "d").iterdir()
        assert TEMPORARY.fullmatch(os.fsencode(aside.name))
        assert stat.S_IMODE(aside.stat().st_mode) == 0o700
        target.settle()
        assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["a", "f"]
        assert os.fstat(target.at(b"a/b/")).st_ino == (tmp_path / "d/a/b").stat().st_ino
        target.settle()


@pytest.mark.parametrize(
    ("names", "listed", "resumes"),
    [
        ([".snapsync-01234567/"], False, True),
        ([".snapsync-01234567/"], True, False),
        ([".snapsync-01234567/", "other"], False, False),
        ([".snapsync-01234567"], False, False),
        ([".snapsync-0123456/"], False, False),
        ([], False, False),
    ],
)
def test_only_what_is_alone_and_its_own_is_resumed(
    tmp_path: Path, names: list[str], listed: bool, resumes: bool
) -> None:
    for name in names:
        if name.endswith("/"):
            (tmp_path / name / "half").mkdir(parents=True)
        else:
            (tmp_path / name).touch()
    with open_destination(tmp_path, 0o755) as target:
        target.resume(lambda _path: listed)
        assert (os.fstat(target.at(b"")).st_ino != tmp_path.stat().st_ino) is resumes
        assert target.is_fresh(b"") is (not names)
        target.settle()
    assert (tmp_path / "half").exists() is resumes


def test_a_failure_hides_nothing_that_is_whole_and_shows_nothing_that_a_kill_left_half(
    tmp_path: Path,
) -> None:
    with open_destination(tmp_path / "d", 0o755) as target:
        target.step_aside()
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=target.at(b"")))
        target.settle_after_failure()
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["f"]

    (tmp_path / "e/.snapsync-01234567/half").mkdir(parents=True)
    with open_destination(tmp_path / "e", 0o755) as target:
        target.resume(lambda _path: False)
        target.settle_after_failure()
    assert [path.name for path in (tmp_path / "e").iterdir()] == [".snapsync-01234567"]


def test_a_link_in_the_place_of_what_is_left_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.snapsync-01234567").symlink_to(tmp_path / "outside")
    with open_destination(tmp_path / "d", 0o755) as target:
        target.resume(lambda _path: False)
        assert os.fstat(target.at(b"")).st_ino == (tmp_path / "d").stat().st_ino
