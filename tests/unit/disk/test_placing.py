"""One file at its place: which way it is made, when it is kept, and what is noticed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.destination import look
from snapd.disk.placing import LARGE_FILE_BYTES, FileTask, Placing, open_source
from snapd.model.errors import ActionFailed, TreeDiffers
from snapd.model.ids import digest_of

CONTENT = b"content"


class Places:
    """A file in one directory, to be placed in another."""

    def __init__(self, base: Path, content: bytes) -> None:
        self.source, self.target = base / "source", base / "target"
        for path in (self.source, self.target):
            path.mkdir()
        (self.source / "f").write_bytes(content)
        self.checksum = digest_of(content)
        self.fds = [os.open(path, os.O_RDONLY) for path in (self.source, self.target)]

    def task(self, mode: int = 0o644) -> FileTask:
        source_fd, target_fd = self.fds
        existing = look(target_fd, b"f")
        return FileTask("./f", b"f", mode, self.checksum, source_fd, target_fd, existing)


@pytest.fixture(params=[CONTENT, b"", b"x" * (LARGE_FILE_BYTES + 1)])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    made = Places(tmp_path, request.param)
    yield made
    for fd in made.fds:
        os.close(fd)


def placing_by_copy(*, verify: bool = False) -> Placing:
    return Placing("copy", verify=verify, on_bytes=lambda _count: None)


@pytest.mark.parametrize("verify", [False, True])
def test_a_copy_is_private_and_has_its_mode(places: Places, verify: bool) -> None:
    task = places.task(0o440)

    assert placing_by_copy(verify=verify).copy(task, *open_source(task)) == "copied"

    copy = places.target / "f"
    assert copy.read_bytes() == (places.source / "f").read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o440
    assert os.listdir(places.target) == ["f"]


def test_a_right_copy_is_kept_and_gets_its_mode(places: Places) -> None:
    placing, task = placing_by_copy(), places.task(0o600)
    placing.copy(task, *open_source(task))
    inode = (places.target / "f").stat().st_ino

    task = places.task(0o000)
    assert placing.copy(task, *open_source(task)) == "kept"

    found = (places.target / "f").stat()
    assert (found.st_ino, stat.S_IMODE(found.st_mode)) == (inode, 0o000)


def test_looking_whether_a_file_is_right_changes_nothing(places: Places) -> None:
    (places.target / "f").write_bytes((places.source / "f").read_bytes())
    (places.target / "f").chmod(0o755)
    size_bytes = (places.source / "f").stat().st_size

    assert placing_by_copy().keeps(places.task(0o600), size_bytes, repair=False)
    assert stat.S_IMODE((places.target / "f").stat().st_mode) == 0o755
    (places.target / "g").hardlink_to(places.target / "f")
    assert not placing_by_copy().keeps(places.task(0o600), size_bytes, repair=False)


def test_a_hard_link_is_the_same_file_unless_its_mode_forbids(places: Places) -> None:
    placing = Placing("hardlink", verify=True, on_bytes=lambda _count: None)

    assert placing.link(places.task()) == "linked"
    assert (places.target / "f").samefile(places.source / "f")
    assert placing.link(places.task()) == "kept"
    assert placing.link(places.task(0o4755)) == "copied"
    assert not (places.target / "f").samefile(places.source / "f")
    assert placing.link(places.task()) == "linked"


def test_verify_notices_a_source_that_lies(places: Places) -> None:
    (places.source / "f").write_bytes(b"another")
    for placing in (placing_by_copy(verify=True), Placing("hardlink", verify=True, on_bytes=print)):
        task = places.task()
        with pytest.raises(TreeDiffers, match=r"\./f"):
            placing.copy(task, *open_source(task))
        with pytest.raises(TreeDiffers, match=r"\./f"):
            placing.link(task)
    assert os.listdir(places.target) == []


@pytest.mark.parametrize("instead", ["nothing", "a link", "a directory", "a fifo"])
def test_a_source_that_is_no_file_is_an_error(tmp_path: Path, instead: str) -> None:
    places = Places(tmp_path, CONTENT)
    (places.source / "f").unlink()
    if instead == "a link":
        (places.source / "f").symlink_to("/etc/hostname")
    elif instead == "a directory":
        (places.source / "f").mkdir()
    elif instead == "a fifo":
        os.mkfifo(places.source / "f")
    with pytest.raises(TreeDiffers, match=r"\./f"):
        open_source(places.task())
    for fd in places.fds:
        os.close(fd)


def test_asking_for_a_reflink_shares_blocks_or_says_that_it_can_t(tmp_path: Path) -> None:
    places = Places(tmp_path, CONTENT)
    placing = Placing("reflink", verify=False, on_bytes=lambda _count: None)
    task = places.task()
    try:
        assert placing.copy(task, *open_source(task)) == "reflinked"
        assert (places.target / "f").read_bytes() == CONTENT
    except ActionFailed as error:
        assert "share blocks" in error.message  # noqa: PT017 - what comes depends on the machine
        assert os.listdir(places.target) == []
    for fd in places.fds:
        os.close(fd)


def test_a_file_with_all_the_names_it_may_have_is_copied(tmp_path: Path) -> None:
    places = Places(tmp_path, CONTENT)
    limit = os.pathconf(tmp_path, "PC_LINK_MAX")
    if limit <= 65_000:
        names = tmp_path / "names"
        names.mkdir()
        for number in range(limit - 1):
            os.link(places.source / "f", names / str(number))

    outcome = Placing("hardlink", verify=False, on_bytes=lambda _: None).link(places.task())

    assert outcome == ("copied" if limit <= 65_000 else "linked")
    assert (places.target / "f").read_bytes() == CONTENT
    for fd in places.fds:
        os.close(fd)
