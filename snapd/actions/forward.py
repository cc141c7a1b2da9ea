"""Send contents to a store while the directory that they come from is still being hashed.

For a store that lacks most of what is pushed: each small file is read once, and the bytes that were
hashed are those that are sent. Nothing depends on it: what was not sent here is looked up and
uploaded once the walk is over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from functools import partial
from threading import Event
from typing import Any, Generic, TypeVar

from anyio import from_thread

from snapd.actions.upload import LargeObject, SmallObject, Uploads
from snapd.disk.hash_workers import FileToHash
from snapd.disk.hashing import FileRow
from snapd.disk.source import SourceObject, SourceReader, open_content, read_whole
from snapd.model.ids import Digest
from snapd.model.settings import TransferSettings

T = TypeVar("T")

_TICK_SECONDS = 0.1
_FILES_MAX = 250_000
"""Digests that were sent are remembered, a hundred bytes each; larger trees are hashed first."""


class Forwarder:
    """A taker of contents for `walk`; lives on the walking thread.

    `list_few(objects)` tells the digests that the store has, or None if they are more than that.
    """

    def __init__(
        self,
        root: str,
        settings: TransferSettings,
        list_few: Callable[[int], Coroutine[Any, Any, set[bytes] | None]],
    ) -> None:
        self._root = root
        self._root_fd = -1
        self._settings = settings
        self._list_few = list_few
        self._listed: set[bytes] = set()
        self._batch: list[SmallObject] = []
        self._batch_bytes = 0
        self.sent: set[bytes] = set()
        self.uploads: Uploads
        """Set before the walk begins."""

    def wants(self, files: int) -> bool:
        """Look whether the store lacks at least half of what may come."""
        if not files or files > _FILES_MAX:
            return False
        listed = self._on_loop(partial(self._list_few, files // 2))
        if listed is None:
            return False
        self._listed = listed
        self._root_fd = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        return True

    def take(self, file: FileToHash, row: FileRow, data: bytes) -> None:
        """Send the bytes of a small file, unless the store has them or was given them."""
        size_bytes, digest = row[2], row[-1]
        if size_bytes >= self._settings.large_object_bytes:
            self.take_large(file, row)
        elif self._is_new(digest):
            self._add(SmallObject(Digest(digest.hex()), size_bytes, lambda: data, if_absent=True))

    def take_large(self, file: FileToHash, row: FileRow) -> None:
        """Send a large file, which is read again for that."""
        size_bytes, digest = row[2], row[-1]
        if not self._is_new(digest):
            return
        path = f"./{(file.directory + file.name).decode()}"
        item = SourceObject(Digest(digest.hex()), size_bytes, 0, path)
        read = partial(
            open_content,
            self._root,
            self._root_fd,
            item,
            is_link=file.is_link,
            same=partial(_is_same, row),
        )
        if size_bytes >= self._settings.large_object_bytes:
            large = LargeObject(item, read, if_absent=True)
            self._on_loop(partial(self.uploads.put_large, large))
        else:
            load = partial(_load, read, item)
            self._add(SmallObject(item.digest, size_bytes, load, if_absent=True))

    def close(self) -> None:
        """Let go of the directory, once nothing is sent from it any more."""
        descriptor, self._root_fd = self._root_fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def flush(self) -> None:
        """Send what waits for a batch to be full."""
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            self._on_loop(partial(self.uploads.put_small, batch))

    def _on_loop(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run something as a task of the uploads, and wait for it.

        Not by `from_thread.run`: what that begins in a scope that is cancelled already waits for
        ever.
        """
        handed: _Handed[T] = _Handed()
        from_thread.check_cancelled()
        from_thread.run_sync(self.uploads.start, handed.run, call)
        return handed.wait()

    def _is_new(self, digest: bytes) -> bool:
        if digest in self._listed or digest in self.sent:
            return False
        self.sent.add(digest)
        return True

    def _add(self, one: SmallObject) -> None:
        if self._batch_bytes + one.size_bytes > self._settings.batch_bytes:
            self.flush()
        self._batch.append(one)
        self._batch_bytes += one.size_bytes
        if len(self._batch) >= self._settings.batch_objects:
            self.flush()


def _load(read: Callable[[], SourceReader], item: SourceObject) -> bytes:
    return read_whole(read(), item)


def _is_same(row: FileRow, status: os.stat_result) -> bool:
    _, _, size_bytes, device, inode, mtime_ns, ctime_ns, _ = row
    return (
        status.st_size == size_bytes
        and status.st_dev == device
        and status.st_ino == inode
        and status.st_mtime_ns == mtime_ns
        and status.st_ctime_ns == ctime_ns
    )


class _Handed(Generic[T]):
    """What the walking thread asked of the event loop, and what came of it."""

    def __init__(self) -> None:
        self.ended = Event()
        self.result: T
        self.error: Exception | None = None

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Do it, on the event loop."""
        try:
            self.result = await call()
        except Exception as error:  # noqa: BLE001  # raised where it was asked for
            self.error = error
        finally:
            self.ended.set()

    def wait(self) -> T:
        """Wait on the walking thread, which is cancelled with the task that walks."""
        while not self.ended.wait(_TICK_SECONDS):
            from_thread.check_cancelled()
        from_thread.check_cancelled()
        if self.error is not None:
            raise self.error
        return self.result
