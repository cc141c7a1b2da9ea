"""Sinks that take an object's bytes as they arrive, verify them and publish the object."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blake3 import blake3

from snapd.disk import fsops
from snapd.disk.publishing import Press, Received, StagedFile, StatFacts, hash_file, hash_stretch
from snapd.model.errors import ActionFailed, ConnectionLost, SnapsyncError
from snapd.model.plan import ObjectRef
from snapd.model.settings import MIB

_OVERRUN_BYTES = MIB
_BUFFER_MAX_BYTES = 16 * MIB
_OVERRUN_STEP_BYTES = MIB
"""After so much more beyond what was announced the room on the disk is looked at again."""

OnBytes = Callable[[int], None]
"""Told how many more bytes arrived; a negative number takes back what came to nothing."""


class BlobWriter:
    """A sink for one whole object; one thread at a time.

    A small body stays in memory and is hashed once at the end; one that is longer than announced by
    more than 1 MiB goes on in a staged file, hashed as it comes, as long as the disk has room for
    what nobody reckoned with; else it is `NoSpace`. `finish` publishes the object or
    raises `DigestMismatch` with the bytes in the quarantine; after any error no bytes are left.
    """

    __slots__ = (
        "_buffer",
        "_buffer_max_bytes",
        "_hasher",
        "_on_bytes",
        "_press",
        "_ref",
        "_room_bytes",
        "_size_bytes",
        "_source",
        "_staged",
    )

    def __init__(self, press: Press, ref: ObjectRef, on_bytes: OnBytes | None, source: str) -> None:
        self._press = press
        self._ref = ref
        self._on_bytes = on_bytes
        self._source = source
        self._buffer = bytearray()
        self._buffer_max_bytes = min(ref.size_bytes, _BUFFER_MAX_BYTES) + _OVERRUN_BYTES
        self._staged: StagedFile | None = None
        self._hasher: blake3 | None = None
        self._room_bytes = 0
        self._size_bytes = 0

    def start(self) -> None:
        """Begin with no bytes, whatever came before."""
        self.discard()

    @property
    def limit_bytes(self) -> int:
        """What may lie in memory; more goes on in a staged file."""
        return self._buffer_max_bytes

    def packed(self) -> tuple[str | int, ...]:
        """Tell what `unpacked` needs to make the same writer in another process."""
        return (*self._ref, self._source)

    @classmethod
    def unpacked(cls, press: Press, packed: tuple[str | int, ...]) -> BlobWriter:
        """Make the writer that `packed` described."""
        ref = tuple.__new__(ObjectRef, packed[:-1])
        return cls(press, ref, None, str(packed[-1]))

    def take(self, pieces: list[bytes]) -> StatFacts | None:
        """Verify and publish an object that is here whole; leaves nothing else, as `finish`.

        Returns how the new file looks, of which no note is taken yet; None if it was here already.
        """
        if self._size_bytes or self._staged is not None:
            self.discard()
        facts = self._press.settle_pieces(self._ref, pieces, self._source)
        if self._on_bytes is not None:
            self._on_bytes(sum(map(len, pieces)))
        return facts

    def write(self, data: bytes | memoryview) -> None:
        """Take the next piece."""
        if self._staged is None and len(self._buffer) + len(data) <= self._buffer_max_bytes:
            self._buffer += data
        else:
            self._spill(data)
        self._size_bytes += len(data)
        if self._on_bytes is not None:
            self._on_bytes(len(data))

    def _spill(self, data: bytes | memoryview) -> None:
        try:
            if self._staged is None or self._hasher is None:
                self._staged = self._press.stage(self._ref.digest)
                self._hasher = blake3(self._buffer)
                fsops.write_all(self._staged.fd, self._buffer)
                self._buffer = bytearray()
                self._room_bytes = self._ref.size_bytes
            if self._size_bytes + len(data) > self._room_bytes:
                more_bytes = max(len(data), _OVERRUN_STEP_BYTES)
                self._press.refuse_overrun(self._ref, more_bytes, held_bytes=self._size_bytes)
                self._room_bytes = self._size_bytes + more_bytes
            fsops.write_all(self._staged.fd, data)
            self._hasher.update(data)
        except OSError as exc:
            self.discard()
            raise self._press.failure(self._ref, exc) from exc
        except SnapsyncError:
            self.discard()
            raise

    def finish(self) -> None:
        """Verify and publish the object."""
        try:
            if self._staged is None or self._hasher is None:
                facts = self._press.settle_pieces(self._ref, [self._buffer], self._source)
                if facts is not None:
                    self._press.note_verified(self._ref.digest, self._ref.mode, facts)
            else:
                received = Received(self._hasher.hexdigest(), self._size_bytes, self._source)
                self._press.settle_file(self._ref, self._staged, received)
        except BaseException:
            self.discard()
            raise
        self._forget()

    def discard(self) -> None:
        """Forget all bytes and leave no file; may be called at any time, and again."""
        taken_back = self._size_bytes
        self._forget()
        if taken_back and self._on_bytes is not None:
            self._on_bytes(-taken_back)

    def _forget(self) -> None:
        staged, self._staged = self._staged, None
        self._hasher = None
        self._size_bytes = 0
        if self._buffer:
            self._buffer = bytearray()
        if staged is not None:
            staged.close()


class LargeBlobWriter:
    """An object of known size that arrives in parts, several at once from different threads.

    Bytes are written at their place as they come. Those that are next in line are hashed at once,
    while they are in the processor's cache. Of other parts the hash is made when it is their turn:
    read back from the file, which nobody else can reach, while they are in the page cache.
    `on_bytes` is told what parts take and, when one starts again, give back, by one thread at a
    time. Of an object that is longer than its snapshot says, each part makes sure that the disk has
    room for what nobody reckoned with. `finish` publishes the object or raises as a `BlobWriter`
    does; after `discard` nothing is left.
    """

    def __init__(
        self,
        press: Press,
        ref: ObjectRef,
        size_bytes: int,
        on_bytes: OnBytes | None,
        source: str,
    ) -> None:
        self._press = press
        self._ref = ref
        self._size_bytes = size_bytes
        self._on_bytes = on_bytes
        self._source = source
        self._hasher = blake3()
        self._state = threading.Condition()
        self._hashed_bytes = 0
        self._hashing = False
        # The part in which the hash is, and the hash as it was where that part begins.
        self._line_offset = 0
        self._line_hasher = self._hasher.copy()
        self._arrived: dict[int, int] = {}
        self._must_reread = False
        self._users = 0
        self._closed = False
        self._overruns = size_bytes > ref.size_bytes
        if self._overruns:
            press.refuse_overrun(ref, size_bytes - ref.size_bytes)
        try:
            self._staged = press.stage(ref.digest)
        except OSError as exc:
            raise press.failure(ref, exc) from exc

    def part(self, offset: int, length: int) -> PartSink:
        """Make a sink for `length` bytes at `offset`."""
        return PartSink(self, offset, length)

    def count(self, size_bytes: int) -> None:
        """Tell `on_bytes` what a part took or gave back, one thread at a time."""
        if self._on_bytes is not None and size_bytes:
            with self._state:
                self._on_bytes(size_bytes)

    def begin(self, offset: int, length: int) -> None:
        """Take note that the bytes of the part at `offset` are about to be written."""
        if self._overruns:
            self._press.refuse_overrun(self._ref, length)
        with self._state:
            if offset in self._arrived:
                self._must_reread = True
            elif offset == self._line_offset:
                # Only the thread of this part hashes a part that is not whole.
                self._hasher = self._line_hasher.copy()
                self._hashed_bytes = offset

    def write(self, offset: int, filled_bytes: int, data: bytes | memoryview) -> None:
        """Write some bytes of the part at `offset`, behind those that it has."""
        self._enter()
        try:
            fsops.pwrite_all(self._staged.fd, data, offset + filled_bytes)
            self._hash_in_line(offset, offset + filled_bytes, data)
        except OSError as exc:
            raise self._press.failure(self._ref, exc) from exc
        finally:
            self._leave()

    def take(self, offset: int, length: int) -> None:
        """Take note that a part is whole, and hash what is in line now.

        Returns once that is done, or is somebody else's work, or waits for an earlier part.
        """
        self._enter()
        try:
            self._hash_in_order(offset, length)
        except OSError as exc:
            raise self._press.failure(self._ref, exc) from exc
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._state:
            if self._closed:
                raise ActionFailed(f"object {self._ref.digest} is not being written any more")
            self._users += 1

    def _hash_in_line(self, offset: int, begin: int, data: bytes | memoryview) -> None:
        """Hash bytes that were just written at `begin`, if the hash is in their part."""
        with self._state:
            if self._hashing or offset != self._line_offset:
                return
            self._hashing = True
        with self._giving_up_on_error():
            if self._hashed_bytes < begin:
                self._hash_stretch(self._hashed_bytes, begin - self._hashed_bytes)
            self._hasher.update(data)
            self._hashed_bytes += len(data)
        with self._state:
            self._end_hashing()

    def _hash_in_order(self, offset: int, length: int) -> None:
        with self._state:
            self._arrived[offset] = length
            if self._hashing:
                return
            self._hashing = True
        with self._giving_up_on_error():
            while stretch := self._next_stretch():
                self._hash_stretch(*stretch)

    @contextmanager
    def _giving_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with self._state:
                self._must_reread = True
                self._end_hashing()
            raise

    def _end_hashing(self) -> None:
        self._hashing = False
        self._state.notify_all()

    def _hash_stretch(self, offset: int, length: int) -> None:
        hash_stretch(self._hasher, self._staged.fd, offset, length)
        self._hashed_bytes += length

    def _next_stretch(self) -> tuple[int, int] | None:
        """Give place and length of what is to be hashed next; None: it has not arrived."""
        with self._state:
            while length := self._arrived.get(self._line_offset):
                end = self._line_offset + length
                if self._hashed_bytes < end:
                    return self._hashed_bytes, end - self._hashed_bytes
                self._line_offset = end
                self._line_hasher = self._hasher.copy()
            self._end_hashing()
            return None

    def finish(self) -> None:
        """Verify and publish the object, all of whose parts have finished.

        Raises as a `BlobWriter` does. Nothing but the object or quarantined bytes is left.
        """
        try:
            self._settle()
        finally:
            self.discard()

    def _settle(self) -> None:
        ref, staged = self._ref, self._staged
        if sum(self._arrived.values()) != self._size_bytes:
            raise ConnectionLost(f"not all parts of object {ref.digest} ({ref.path}) arrived")
        with self._state:
            while self._hashing:
                self._state.wait()
        with fsops.translated(f"can't verify object {ref.digest}", self._press.root):
            size_bytes = os.fstat(staged.fd).st_size
            in_order = self._hashed_bytes == size_bytes == self._size_bytes
            reread = self._must_reread or not in_order
            actual = hash_file(staged.fd) if reread else self._hasher.hexdigest()
        self._press.settle_file(ref, staged, Received(actual, size_bytes, self._source))

    def discard(self) -> None:
        """Leave no file; may be called again.

        A part that is just being written or hashed keeps the file open until it is done.
        """
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._users += 1
        self._leave()

    def _leave(self) -> None:
        with self._state:
            self._users -= 1
            if not self._closed or self._users:
                return
        self._staged.close()


class PartSink:
    """A sink for one part of a large object; one thread at a time."""

    __slots__ = ("_filled_bytes", "_length", "_offset", "_writer")

    def __init__(self, writer: LargeBlobWriter, offset: int, length: int) -> None:
        self._writer = writer
        self._offset = offset
        self._length = length
        self._filled_bytes = 0

    def start(self) -> None:
        """Begin with no bytes, whatever came before."""
        self._writer.count(-self._filled_bytes)
        self._filled_bytes = 0
        self._writer.begin(self._offset, self._length)

    def write(self, data: bytes | memoryview) -> None:
        """Write the next piece at its place; more than the part's length is refused."""
        end = self._filled_bytes + len(data)
        if end > self._length:
            raise ConnectionLost(f"more than the {self._length} bytes at {self._offset} arrived")
        self._writer.write(self._offset, self._filled_bytes, data)
        self._filled_bytes = end
        self._writer.count(len(data))

    def finish(self) -> None:
        """Have the rest of the part hashed in its turn; a part that is short is refused."""
        if self._filled_bytes != self._length:
            raise ConnectionLost(
                f"{self._filled_bytes} of the {self._length} bytes at {self._offset} arrived"
            )
        self._writer.take(self._offset, self._length)
