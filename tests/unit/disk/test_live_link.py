from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from snapd.disk import live_link
from snapd.disk.live_link import MARK, LiveLink, may, open_live_link
from snapd.model.access import Peer
from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    DestinationMissing,
    DestinationTaken,
    SnapsyncError,
)
from snapd.model.ids import SnapshotId

ONE, TWO = (SnapshotId(f"{number:064x}") for number in (1, 2))
OWNER = "node-1:/state"
ME = Peer(1, os.geteuid(), os.getegid(), frozenset())
STRANGER = Peer(1, 12345, 12345, frozenset({23456}))


def opened(dest: Path, owner: str = OWNER, **more: Any) -> AbstractContextManager[LiveLink]:
    return open_live_link(str(dest), owner=owner, durable=True, **more)


def tree_of(tmp_path: Path, snapshot_id: SnapshotId) -> Path:
    tree = tmp_path / "state" / "trees" / snapshot_id
    tree.mkdir(parents=True, exist_ok=True)
    return tree


def refused(dest: Path, kind: type[SnapsyncError], **more: Any) -> str:
    with pytest.raises(kind) as error, opened(dest, **more) as link:
        link.claim()
    return error.value.message


def test_a_directory_is_made_taken_over_and_switched(tmp_path: Path) -> None:
    dest = tmp_path / "iris"
    with opened(dest, make=True) as link:
        link.claim()
        assert link.tree() is None
        link.switch(tree_of(tmp_path, ONE))
        assert link.tree() == (str(tree_of(tmp_path, ONE)), ONE)
        link.switch(tree_of(tmp_path, TWO))
    with opened(dest) as link:
        link.claim()
        assert link.tree() == (str(tree_of(tmp_path, TWO)), TWO)
        assert sorted(os.listdir(dest)) == [MARK, "current"]
        link.release()
        link.release()
    assert os.listdir(dest) == ["current"]
    assert stat.S_IMODE(dest.stat().st_mode) == 0o755


def test_what_a_killed_daemon_left_half_done_is_removed(tmp_path: Path) -> None:
    dest = tmp_path / "iris"
    dest.mkdir()
    (dest / ".snapsync-0123abcd").symlink_to("/x/trees/y")
    with opened(dest) as link:
        link.claim()
    assert os.listdir(dest) == [MARK]


def test_what_others_put_beside_the_link_later_is_theirs(tmp_path: Path) -> None:
    dest = tmp_path / "iris"
    with opened(dest, make=True) as link:
        link.claim()
    (dest / "README").touch()
    with opened(dest) as link:
        link.claim()


def test_however_many_names_somebody_puts_there_only_some_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "iris"
    read: list[str] = []
    with opened(dest, make=True) as link:
        link.claim()
    for number in range(20):
        (dest / f"theirs-{number}").touch()
    real = os.scandir

    def noted(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for each in entries:
            read.append(each.name)
            yield each

    @contextmanager
    def counted(fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with real(fd) as entries:
            yield noted(entries)

    monkeypatch.setattr(live_link, "_NAMES_MAX", 5)
    monkeypatch.setattr(os, "scandir", counted)
    with opened(dest) as link:
        link.claim()
    assert len(read) == 5


def test_a_directory_that_is_somebody_else_s_is_refused(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "a\nb").touch()
    assert "'a\\nb'" in refused(full, DestinationTaken)
    theirs = tmp_path / "theirs"
    with opened(theirs, make=True, owner="node-2:/state") as link:
        link.claim()
    assert "another daemon: 'node-2:/state'" in refused(theirs, DestinationTaken)
    (theirs / MARK).write_text("[" * 9999)
    refused(theirs, DestinationTaken)
    (theirs / MARK).unlink()
    os.mkfifo(theirs / MARK)
    refused(theirs, DestinationTaken)
    (theirs / MARK).unlink()
    (theirs / MARK).symlink_to("/etc/passwd")
    refused(theirs, DestinationTaken)


@pytest.mark.parametrize("kind", ["elsewhere", "file", "directory"])
def test_a_link_that_is_none_of_ours_is_never_replaced(tmp_path: Path, kind: str) -> None:
    dest = tmp_path / "iris"
    dest.mkdir()
    current = dest / "current"
    if kind == "elsewhere":
        current.symlink_to("/etc")
    elif kind == "file":
        current.touch()
    else:
        (current / "x").mkdir(parents=True)
    refused(dest, DestinationTaken)
    assert os.path.lexists(current)
    if kind == "directory":
        with opened(dest) as link, pytest.raises(DestinationTaken):
            link.switch(tree_of(tmp_path, ONE))
        assert os.listdir(dest) == ["current"]


def test_a_place_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    assert "there is no" in refused(tmp_path / "volume" / "iris", DestinationMissing, make=True)
    refused(tmp_path / "iris", DestinationMissing)
    refused(tmp_path / "iris", DestinationMissing, asker=ME)
    (tmp_path / "link").symlink_to(tmp_path)
    refused(tmp_path / "link", DestinationTaken, make=True)
    (tmp_path / "file").touch()
    refused(tmp_path / "file", DestinationTaken, make=True)
    refused(tmp_path / "file" / "iris", ActionFailed, make=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_links_on_the_way_are_followed_for_the_configuration_only(tmp_path: Path) -> None:
    (tmp_path / "real" / "iris").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with opened(tmp_path / "link" / "iris") as link:
        link.claim()
    assert "is not a directory" in refused(tmp_path / "link" / "iris", DestinationMissing, asker=ME)


def test_whoever_asks_has_to_be_able_to_write_there(tmp_path: Path) -> None:
    dest = tmp_path / "iris"
    dest.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    with opened(dest, asker=ME) as link:
        assert isinstance(link, LiveLink)
    assert "may not write to" in refused(dest, AccessDenied, asker=STRANGER)
    dest.chmod(0o777)
    with opened(dest, asker=STRANGER):
        pass
    closed = tmp_path / "closed"
    closed.mkdir()
    inside = closed / "iris"
    inside.mkdir()
    inside.chmod(0o777)
    closed.chmod(0o700)
    said = refused(inside, AccessDenied, asker=STRANGER)
    assert said.endswith(f"may not enter {closed}"), "though it is open to all itself"
    assert os.listdir(dest) == os.listdir(inside) == []


@pytest.mark.parametrize(
    ("mode", "owner", "group", "granted"),
    [
        (0o700, 12345, 1, True),
        (0o077, 12345, 1, False),  # the owner's bits alone count for the owner
        (0o070, 1, 12345, True),
        (0o070, 1, 23456, True),
        (0o707, 1, 23456, False),
        (0o007, 1, 1, True),
        (0o005, 1, 1, False),
        (0o002, 1, 1, False),
    ],
)
def test_modes_are_read_as_the_kernel_does(
    mode: int, owner: int, group: int, granted: bool
) -> None:
    found = os.stat_result((mode | stat.S_IFDIR, 1, 1, 1, owner, group, 0, 0, 0, 0))
    assert may(STRANGER, found, os.W_OK | os.X_OK) is granted
