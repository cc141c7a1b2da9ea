from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.listing import DIRECTORY, Lister, Listing, source_error
from snapd.model.errors import AccessDenied, ActionFailed, SourceChanged


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    for name in ("a/x", "a-b", "a.b/y", "a0", "b/c/d/z", "b/c.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "link").symlink_to("b")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def listed(root: Path, root_fd: int, *, follow: bool) -> Listing:
    lister = Lister(str(root), root_fd, follow=follow, excludes=None, on_listed=lambda count: None)
    return lister.run(0o755)


def test_entries_are_visited_in_the_order_of_whole_paths(tmp_path: Path, root_fd: int) -> None:
    listing = listed(tmp_path, root_fd, follow=False)
    names = [listing.name(entry) for _, entry in listing.in_order()]
    assert b" ".join(names) == b"a-b a.b/ y a/ x a0 b/ c.txt c/ d/ z"


def test_files_are_numbered_in_that_order(tmp_path: Path, root_fd: int) -> None:
    listing = listed(tmp_path, root_fd, follow=True)
    numbers = [
        listing.numbers[entry]
        for _, entry in listing.in_order()
        if listing.kinds[entry] != DIRECTORY
    ]
    assert numbers == list(range(8))
    assert listing.file_count == 8


def test_groups_hold_every_file_once(tmp_path: Path, root_fd: int) -> None:
    listing = listed(tmp_path, root_fd, follow=True)
    groups = [group for group, _ in listing.groups(1)]
    found = sorted(path + name for path, names, _ in groups for name in names)
    assert b" ".join(found) == b"a-b a.b/y a/x a0 b/c.txt b/c/d/z link/c.txt link/c/d/z"
    assert all(len(names) == len(links) == 1 for _, names, links in groups)


def test_no_descriptor_is_left(tmp_path: Path, root_fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    listed(tmp_path, root_fd, follow=True)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "Permission denied"), AccessDenied),
        (FileNotFoundError(2, "No such file or directory"), SourceChanged),
        (OSError(5, "Input/output error"), ActionFailed),
    ],
)
def test_system_errors_become_words_that_name_the_path(error: OSError, kind: type) -> None:
    told = source_error(error, "/x/y")
    assert isinstance(told, kind)
    assert "'/x/y'" in told.message
