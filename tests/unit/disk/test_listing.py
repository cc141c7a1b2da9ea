from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.listing import DirectoryPaths, Lister, Listing, source_error
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


def test_runs_are_in_the_order_of_whole_paths(tmp_path: Path, root_fd: int) -> None:
    listing = listed(tmp_path, root_fd, follow=False)
    names = [
        name
        for _, first, end, _ in listing.runs()
        for name in listing.names_between(first, end or first + 1)
    ]
    assert b" ".join(names) == b"a-b a.b/ y a/ x a0 b/ c.txt c/ d/ z"


def test_files_are_numbered_by_directory(tmp_path: Path, root_fd: int) -> None:
    listing = listed(tmp_path, root_fd, follow=True)
    paths = DirectoryPaths(listing)
    found = []
    for file in range(listing.file_count):
        directory, entry = listing.locate(file)
        assert listing.file_firsts[directory] <= file < listing.end_of_files(directory)
        found.append(paths.of(directory) + listing.name(entry))
    assert b" ".join(found) == b"a-b a0 a.b/y a/x b/c.txt b/c/d/z link/c.txt link/c/d/z"
    with pytest.raises(IndexError):
        listing.locate(listing.file_count)
    runs = [(file, end - first) for _, first, end, file in listing.runs() if end]
    assert sum(count for _, count in runs) == listing.file_count
    assert [file for file, _ in runs] == [0, 2, 3, 1, 4, 5, 6, 7]


def test_directories_know_their_own(tmp_path: Path, root_fd: int) -> None:
    listing = listed(tmp_path, root_fd, follow=False)
    paths = DirectoryPaths(listing)
    below = [paths.of(number) for number in listing.directories_of(0)]
    assert below == [b"a.b/", b"a/", b"b/"]
    for number in range(len(listing.modes)):
        status = (tmp_path / os.fsdecode(paths.of(number))).stat()
        assert (listing.devices[number], listing.inodes[number]) == (status.st_dev, status.st_ino)
    # In any order, also back up from somewhere deep.
    deep = max(range(len(listing.modes)), key=listing.depths.__getitem__)
    assert [paths.of(number) for number in (deep, 0, deep)] == [b"b/c/d/", b"", b"b/c/d/"]


def test_name_that_is_shown_twice_counts_as_a_change(
    tmp_path: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Lister._fit_names

    def twice(lister: Lister, names: list[str], depth: int, suffix: bytes) -> list[bytes]:
        if suffix and depth == 0:
            names = [*names, "a0"]
        return real(lister, names, depth, suffix)

    monkeypatch.setattr(Lister, "_fit_names", twice)
    with pytest.raises(SourceChanged, match="while it was listed"):
        listed(tmp_path, root_fd, follow=False)


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
