"""The files of a directory that is a store: reading, staging, publishing, walking; all blocking.

Layout: a key is a path below the root. What is half written lies in `.snapsync-tmp/` under a short
random name, is made durable, and gets its final name by one link or rename. So a reader never meets
a part of an object, two writers never meet in a name, and the longest key can be written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import FileIO
from typing import TypeVar, TypeVarTuple, Unpack

from snapd.model.errors import (
    AccessDenied,
    ConditionFailed,
    ConnectionLost,
    KeyMissing,
    NoSpace,
    SnapsyncError,
    StoreFailing,
    StoreMissing,
    UsageError,
)
from snapd.model.ids import digest_of
from snapd.model.layout import MANIFESTS_PREFIX, OBJECTS_PREFIX, digest_in_key
from snapd.model.uris import StoreUri
from snapd.remote.base import Condition, Document, Get, ObjectInfo, Stored, item_error
from snapd.remote.durability import make_directories, sync_all, sync_directory, sync_file
from snapd.remote.durability import syncs_at_once as file_system_syncs_at_once

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STAGING = ".snapsync-tmp"
CHUNK_BYTES = 1024 * 1024
_LOCK = "lock"
_FORGOTTEN_SECONDS = 24 * 3600
_OBJECT_MODE = 0o444
_DOCUMENT_MODE = 0o644

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class StoreFiles:
    """Every system call on a store's directory, with errors that name the key and the cause."""

    def __init__(self, uri: StoreUri) -> None:
        self.uri = uri
        self.root = uri.path
        self._prefix = f"{uri.path.rstrip('/')}/"
        self._staging = f"{self._prefix}{STAGING}"
        self._at_once: bool | None = None

    def path(self, key: str) -> str:
        """Find the place of a key; `UsageError` if it is none that a directory can hold."""
        segments = key.split("/")
        if "\0" in key or segments[0] == STAGING or not {"", ".", ".."}.isdisjoint(segments):
            raise UsageError(f"not a key of {self.uri}: {key!r}", key=key)
        return self._prefix + key

    def io(self, key: str, call: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        """Make a system call; an `OSError` becomes the error that says the cause."""
        try:
            return call(*arguments)
        except OSError as error:
            raise self._translated(error, key) from error

    def _translated(self, error: OSError, key: str) -> SnapsyncError:
        said = f"{self.uri} {key}: {os.strerror(error.errno or 0)}"
        if error.errno in _DENIED:
            return AccessDenied(
                said, hint="Check the owner and the mode of that path.", key=key, path=self.root
            )
        if error.errno in _FULL:
            return NoSpace(said, key=key)
        if error.errno == errno.ENAMETOOLONG:
            return UsageError(said, key=key)
        if error.errno not in _ABSENT:
            return StoreFailing(said, key=key)
        return self._absent(key)

    def _absent(self, key: str) -> SnapsyncError:
        if not os.path.isdir(self.root):
            return StoreMissing(f"{self.uri}: there is no such directory", uri=str(self.uri))
        return KeyMissing(f"{self.uri} has nothing at {key}", key=key)

    # Reading

    def _open(self, key: str) -> tuple[int, int]:
        # O_NONBLOCK: a pipe that somebody left at a key must not hang the thread.
        fd = self.io(key, os.open, self.path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise self._absent(key)
        return fd, status.st_size

    def read_into_sink(self, get: Get, buffer: bytearray, check: Callable[[], None]) -> int:
        """Read an object or a range of it, piece by piece; `check` raises to stop."""
        fd, size_bytes = self._open(get.key)
        try:
            begin, end = self._extent(get, size_bytes)
            self._feed(get, fd, begin, end, buffer, check)
        finally:
            os.close(fd)
        return end - begin

    def _extent(self, get: Get, size_bytes: int) -> tuple[int, int]:
        if get.byte_range is None:
            return 0, size_bytes
        begin = get.byte_range.offset
        if begin >= size_bytes:
            raise KeyMissing(
                f"{self.uri} {get.key}: no byte {begin} in {size_bytes} bytes",
                key=get.key,
                size_bytes=size_bytes,
            )
        return begin, min(begin + get.byte_range.length, size_bytes)

    def _feed(
        self,
        get: Get,
        fd: int,
        begin: int,
        end: int,
        buffer: bytearray,
        check: Callable[[], None],
    ) -> None:
        view = memoryview(buffer)
        position = begin
        _tell(get.key, get.sink.start)
        while position < end:
            check()
            wanted = min(len(buffer), end - position)
            count = self.io(get.key, os.preadv, fd, [view[:wanted]], position)
            if count == 0:
                raise ConnectionLost(
                    f"{self.uri} {get.key}: ended after {position} of {end} bytes", key=get.key
                )
            _tell(get.key, get.sink.write, view[:count])
            position += count
        check()
        _tell(get.key, get.sink.finish)

    def read_document(self, key: str, limit_bytes: int) -> Document:
        """Read a small file whole."""
        fd, size_bytes = self._open(key)
        with open(fd, "rb", buffering=0) as file:
            if size_bytes > limit_bytes:
                raise StoreFailing(
                    f"{self.uri} {key}: {size_bytes} bytes, and at most {limit_bytes} are accepted",
                    key=key,
                    limit_bytes=limit_bytes,
                )
            data = self.io(key, file.readall) or b""
        return Document(data, digest_of(data))

    def head(self, key: str) -> ObjectInfo | None:
        """Look at a key; None if it is absent."""
        try:
            status = self.io(key, os.stat, self.path(key))
        except KeyMissing:
            return None
        return ObjectInfo(key, status.st_size) if stat.S_ISREG(status.st_mode) else None

    # Writing

    def holds(self, key: str) -> bool:
        """Tell whether there is a file at a key; the root need not exist."""
        return os.path.isfile(self.path(key))

    def stage(self, key: str) -> Staged:
        """Open an unpublished file for `key`; a missing root is made."""
        self.path(key)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        name = f"{self._staging}/{secrets.token_hex(8)}"
        try:
            fd = os.open(name, flags, 0o600)
        except FileNotFoundError:
            self.io(key, self._make_staging)
            fd = self.io(key, os.open, name, flags, 0o600)
        except OSError as error:
            raise self._translated(error, key) from error
        return Staged(self, key, name, fd)

    def _make_staging(self) -> None:
        if not os.path.isdir(self.root):
            os.makedirs(self.root, exist_ok=True)
            # Whoever may make an entry in the parent may be forbidden to read it.
            with suppress(PermissionError):
                sync_directory(os.path.dirname(self.root))
        os.makedirs(self._staging, exist_ok=True)

    def publish(self, staged: Staged, *, if_absent: bool) -> bool:
        """Give a durable staged file its key; False if `if_absent` and the key is there already."""
        path = self.path(staged.key)
        name = os.link if if_absent else os.replace
        try:
            try:
                name(staged.name, path)
            except FileNotFoundError:
                make_directories(os.path.dirname(path))
                name(staged.name, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._translated(error, staged.key) from error
        return True

    def sync_names(self, keys: Iterable[str]) -> None:
        """Make the names of published keys durable, with all directories above them."""
        directories: dict[str, str] = {}
        for key in keys:
            directory = os.path.dirname(self.path(key))
            while directory not in directories and len(directory) >= len(self.root):
                directories[directory] = key
                directory = os.path.dirname(directory)
        for directory in sorted(directories, key=len, reverse=True):
            self.io(directories[directory], sync_directory, directory)

    def syncs_at_once(self, key: str) -> bool:
        """Tell whether `sync_all` does for this store; asked once something has been staged."""
        if self._at_once is None:
            self._at_once = self.io(key, file_system_syncs_at_once, self._staging)
        return self._at_once

    def sync_all(self) -> None:
        """Make everything in this store durable, contents and names."""
        self.io(STAGING, sync_all, self._staging)

    def write_document(self, key: str, data: bytes, condition: Condition) -> Stored:
        """Write a document; called under the lock unless the condition is `if_absent`."""
        if condition.kind == "if_match":
            self._check_match(key, condition.etag)
        with self.stage(key) as staged:
            staged.write(data)
            staged.seal(durable=True)
            stored = staged.publish(if_absent=condition.kind == "if_absent")
        if stored.existed:
            raise ConditionFailed(f"{self.uri} {key}: it exists already", key=key)
        self.sync_names([key])
        return Stored(digest_of(data))

    def _check_match(self, key: str, etag: str) -> None:
        try:
            found = self.read_document(key, 1 << 62).etag
        except KeyMissing:
            found = ""
        if found != etag:
            raise ConditionFailed(f"{self.uri} {key}: it has changed since it was read", key=key)

    def delete(self, key: str) -> None:
        """Remove a key; called under the lock."""
        try:
            self.io(key, os.unlink, self.path(key))
        except KeyMissing:
            return
        self.io(key, sync_directory, os.path.dirname(self.path(key)))

    # Staging

    def open_lock(self, key: str) -> FileIO:
        """Open the file that writers of documents lock; a missing root is made."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.io(key, self._make_staging)
        return FileIO(self.io(key, os.open, f"{self._staging}/{_LOCK}", flags, 0o666), "r+")

    def try_lock(self, lock: FileIO, key: str) -> bool:
        """Take the lock if nobody has it; it ends when the file is closed or the process ends."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._translated(error, key) from error
        return True

    def sweep(self) -> None:
        """Remove staged files that killed writers left behind, a day after their last byte."""
        with suppress(OSError), os.scandir(self._staging) as entries:
            found = {entry.path: entry.stat().st_mtime for entry in entries if entry.name != _LOCK}
            now = os.stat(self._staging).st_mtime
            for path, touched in found.items():
                if touched < now - _FORGOTTEN_SECONDS:
                    os.unlink(path)

    # Walking

    def walk(self, prefix: str, check: Callable[[], None]) -> Iterator[ObjectInfo]:
        """Yield every key that starts with `prefix`, in byte order; `check` raises to stop.

        Below `.objects/` and `.manifests/` only names of the layout count, so that temporary files
        of other tools stay unseen.
        """
        if not os.path.isdir(self.root):
            # The directory may be made by another writer right now.
            absent = self._absent(prefix)
            if isinstance(absent, StoreMissing):
                raise absent
        above = prefix.rpartition("/")[0]
        if not above:
            yield from self._walk("", prefix, check)
        elif {"", ".", ".."}.isdisjoint(above.split("/")):
            yield from self._walk(f"{above}/", prefix, check)

    def _walk(self, above: str, prefix: str, check: Callable[[], None]) -> Iterator[ObjectInfo]:
        check()
        try:
            entries = self.io(above or prefix, _scan, self._prefix + above)
        except KeyMissing:
            return
        for name, size_bytes in entries:
            key = above + name
            if name.endswith("/"):
                if (key.startswith(prefix) or prefix.startswith(key)) and key != f"{STAGING}/":
                    yield from self._walk(key, prefix, check)
            elif key.startswith(prefix) and _is_ours(key):
                yield ObjectInfo(key, size_bytes)


class Staged:
    """An unpublished file; leaving its `with` block removes the staged name in every case."""

    def __init__(self, files: StoreFiles, key: str, name: str, fd: int) -> None:
        self.key = key
        self.name = name
        self.size_bytes = 0
        self._files = files
        self._fd = fd

    def __enter__(self) -> Staged:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            count = self._files.io(self.key, os.write, self._fd, view)
            view = view[count:]
        self.size_bytes += len(data)

    def seal(self, *, durable: bool) -> None:
        """End the writing: give the file its final mode and, if asked to, put it on the disk.

        The mode does not depend on the source or the umask: whoever may enter the directory may
        read the object.
        """
        mode = _OBJECT_MODE if self.key.startswith(OBJECTS_PREFIX) else _DOCUMENT_MODE
        self._files.io(self.key, os.fchmod, self._fd, mode)
        if durable:
            self._files.io(self.key, sync_file, self._fd)
        self._close_descriptor()

    def publish(self, *, if_absent: bool) -> Stored:
        """Give the file its key, or leave the one that is there."""
        return Stored("", existed=not self._files.publish(self, if_absent=if_absent))

    def close(self) -> None:
        """Close the file and remove its staged name, published or not."""
        with suppress(OSError):
            self._close_descriptor()
        with suppress(OSError):
            os.unlink(self.name)

    def _close_descriptor(self) -> None:
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            self._files.io(self.key, os.close, descriptor)


def _tell(key: str, call: Callable[[Unpack[Ts]], None], *arguments: *Ts) -> None:
    try:
        call(*arguments)
    except SnapsyncError:
        raise
    except Exception as error:
        raise item_error(error, key) from error


def _scan(directory: str) -> list[tuple[str, int]]:
    """List a directory in the byte order of the keys below it; directories end with a slash."""
    with os.scandir(directory) as entries:
        found = [shown for entry in entries if (shown := _show(entry)) is not None]
    return sorted(found, key=lambda shown: shown[0].encode())


def _show(entry: os.DirEntry[str]) -> tuple[str, int] | None:
    try:
        entry.name.encode()
        status = entry.stat()
    except UnicodeEncodeError:
        return None
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    if stat.S_ISDIR(status.st_mode):
        return f"{entry.name}/", 0
    return (entry.name, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _is_ours(key: str) -> bool:
    for prefix in (OBJECTS_PREFIX, MANIFESTS_PREFIX):
        if key.startswith(prefix):
            return digest_in_key(key, prefix) is not None
    return True
