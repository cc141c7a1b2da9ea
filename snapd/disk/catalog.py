"""This node's own record of pushes and hashed directories: one JSON line each, in one file.

Writers append one line at a time under a lock that they hold for moments; readers need none. A
file that has grown too long loses its older half. What is damaged or not understood is passed over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from snapd.disk import fsops
from snapd.model.errors import ActionFailed, UsageError
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.pushes import Push, next_push
from snapd.model.receipts import parse_moment
from snapd.model.settings import MIB

LENGTH_MAX_BYTES = 8 * MIB
"""Some twenty thousand records."""
_BEGIN = b'{"at": "'
"""What every line begins with; another file of JSON lines is nothing to write to."""
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.01
_READ_MAX_BYTES = 4 * LENGTH_MAX_BYTES
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class OwnRecord:
    """The record in one file, which need not exist.

    Raises `UsageError` for a file that is something else, which is never written to, and the errors
    of `fsops.translate`.
    """

    def __init__(
        self,
        path: Path,
        *,
        length_max_bytes: int = LENGTH_MAX_BYTES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._length_max_bytes = length_max_bytes
        self._sleep = sleep

    def add(
        self,
        location: str,
        snapshot_id: SnapshotId,
        *,
        now_ms: int,
        by: str,
        keep_time: bool = False,
    ) -> Push | None:
        """Record a snapshot; None if the newest one of the location is the same.

        With `keep_time` the time is that of another record of the same push, by which the two are
        known to be one; else it is later than that of the line before. Raises `ActionFailed` if
        another writer keeps the lock for seconds.
        """
        with fsops.translated("can't record it", self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked() as fd:
                data = self._read(fd)
                here = (push for push in _pushes(data) if push.location == location)
                push = next_push(next(here, None), location, snapshot_id, now_ms=now_ms, by=by)
                if push is not None:
                    push = replace(push, at_ms=now_ms) if keep_time else push
                    self._append(fd, data, push)
                return push

    def pushes(self) -> list[Push]:
        """Read all that is recorded, the latest line first."""
        with fsops.translated("can't read the record", self._path):
            try:
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                return []
            try:
                return list(_pushes(self._read(fd)))
            finally:
                os.close(fd)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        waited = 0.0
        while True:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(self._path, flags, 0o600)
            try:
                if _try_lock(fd) and self._is_current(fd):
                    yield fd
                    return
            finally:
                os.close(fd)
            if waited >= _PATIENCE_SECONDS:
                raise ActionFailed(
                    f"another process keeps the record locked: {self._path}",
                    hint="Look for a process that was stopped: `fuser -v FILE`.",
                )
            self._sleep(_PAUSE_SECONDS)
            waited += _PAUSE_SECONDS

    def _is_current(self, fd: int) -> bool:
        """Tell whether nobody has put a shorter file in this one's place meanwhile."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        return False

    def _read(self, fd: int) -> bytes:
        size_bytes = os.fstat(fd).st_size
        if size_bytes > _READ_MAX_BYTES:
            raise self._foreign()
        data = b""
        while len(data) < size_bytes and (piece := os.pread(fd, size_bytes - len(data), len(data))):
            data += piece
        if not data.startswith(_BEGIN[: len(data)]):
            raise self._foreign()
        return data

    def _foreign(self) -> UsageError:
        return UsageError(
            f"not a record of this program: {self._path}",
            hint="Name another file with --catalog, or none.",
        )

    def _append(self, fd: int, data: bytes, push: Push) -> None:
        line = f"{json.dumps(push.to_json(), ensure_ascii=False)}\n".encode()
        if len(data) + len(line) > self._length_max_bytes:
            self._replace(_newer_half(data) + line)
            return
        # A writer that died may have left a part of a line.
        fsops.write_all(fd, line if not data or data.endswith(b"\n") else b"\n" + line)

    def _replace(self, data: bytes) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{token_hex(4)}.tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fsops.write_all(fd, data)
            finally:
                os.close(fd)
            os.replace(temporary, self._path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Without locks one write of one line is still whole on a local file system.
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _newer_half(data: bytes) -> bytes:
    whole = data[: data.rfind(b"\n") + 1]
    return whole[whole.find(b"\n", len(whole) // 2) + 1 :]


def _pushes(data: bytes) -> Iterator[Push]:
    for line in reversed(data.split(b"\n")):
        if (push := _push(line)) is not None:
            yield push


def _push(line: bytes) -> Push | None:
    with suppress(ValueError, KeyError, TypeError, RecursionError, UsageError, OverflowError):
        document = json.loads(line)
        ids = [document["snapshot_id"], document.get("previous_id"), document.get("parent_id")]
        texts = [document["location"], document.get("by", "")]
        at_ms = round(parse_moment(document["at"]) * 1000)
        if (
            all(each is None or is_digest(each) for each in ids)
            and ids[0] is not None
            and all(isinstance(each, str) for each in texts)
        ):
            return Push(at_ms, texts[0], ids[0], ids[1], ids[2], texts[1])
    return None
