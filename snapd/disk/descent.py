"""Directories below a root reached by descriptors only, never through a symbolic link."""

from __future__ import annotations

import os
from types import TracebackType

OPEN_MAX = 64
"""Directories held open at once; a deeper chain is opened again from the root when needed."""


class Descent:
    """The chain of open directories from a root down to the one that was used last.

    Entries of a manifest come in an order in which this chain hardly changes from one to the next,
    so one directory is opened about once however many files it holds. The root's descriptor stays
    the caller's; all others are closed on exit.
    """

    def __init__(self, root_fd: int, *, flags: int = os.O_RDONLY) -> None:
        self._root_fd = root_fd
        self._flags = flags | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._names: list[bytes] = []
        self._fds: list[int] = []
        self._current: bytes | None = b""

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what this opened."""
        self._current = None
        self._ascend(0)

    def at(self, directory: bytes) -> int:
        """Give the descriptor of `directory`: empty for the root, else `a/b/`.

        It stays open until the next call. Raises `OSError` as `open` does: ENOTDIR or ELOOP where
        something on the way is not a real directory.
        """
        if directory == self._current:
            return self._top
        self._current = None
        names = directory.split(b"/")[:-1]
        self._ascend(_common_length(self._names, names))
        if not self._fds:
            self._names.clear()
        for name in names[len(self._names) :]:
            self._enter(name)
        self._current = directory
        return self._top

    @property
    def _top(self) -> int:
        return self._fds[-1] if self._fds else self._root_fd

    def _enter(self, name: bytes) -> None:
        fd = os.open(name, self._flags, dir_fd=self._top)
        if len(self._fds) == OPEN_MAX:
            os.close(self._fds.pop(0))
        self._fds.append(fd)
        self._names.append(name)

    def _ascend(self, level: int) -> None:
        while len(self._names) > level:
            self._names.pop()
            if self._fds:
                os.close(self._fds.pop())


def _common_length(first: list[bytes], second: list[bytes]) -> int:
    length = 0
    for mine, theirs in zip(first, second, strict=False):
        if mine != theirs:
            break
        length += 1
    return length
