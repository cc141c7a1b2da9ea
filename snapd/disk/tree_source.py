"""A complete tree of a cache, read by directory descriptors."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.descent import Descent
from snapd.model.errors import AccessDenied, TreeDiffers


class TreeSource(ExitStack):
    """The tree's directories, by descriptors that need no permission to list them."""

    def __init__(self, tree: Path) -> None:
        super().__init__()
        try:
            fd = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise TreeDiffers(f"there is no tree at {tree}") from exc
        self.callback(os.close, fd)
        self.path = tree
        self._descent = self.enter_context(Descent(fd, flags=os.O_PATH))

    def at(self, directory: bytes) -> int:
        """Give the descriptor of a directory, valid until the next call."""
        try:
            return self._descent.at(directory)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise TreeDiffers(
                f"the tree in the cache lacks the directory {os.fsdecode(directory)}",
                tree=str(self.path),
            ) from exc
        except PermissionError as exc:
            raise unreadable_in_tree(os.fsdecode(directory)) from exc


def unreadable_in_tree(path: str) -> AccessDenied:
    """Say that a mode of the snapshot keeps the caller out of somebody else's cache."""
    return AccessDenied(
        f"you may not read {path} in the cache: the snapshot gives it a mode for its owner only",
        hint="Pull with --standalone into a cache of your own, or push it with other modes.",
        path=path,
    )


def open_tree(tree: Path) -> TreeSource:
    """Open a tree, to be left as a context; raises `TreeDiffers` if there is none."""
    with fsops.translated("can't read the tree", tree):
        return TreeSource(tree)
