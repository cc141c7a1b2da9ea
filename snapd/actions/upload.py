"""Objects on their way into a store: bounded in number and in bytes, ended by the first failure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from snapd.disk.source import SourceObject, SourceReader
from snapd.model.errors import SnapsyncError
from snapd.model.ids import Digest
from snapd.model.layout import object_key
from snapd.model.settings import TransferSettings
from snapd.remote.base import Put, RemoteStore
from snapd.runtime.allocation import return_large_blocks
from snapd.runtime.limits import Budget

T = TypeVar("T")

_LARGE_TRIES = 2
_LARGE_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class SmallObject:
    """An object that is held in memory while it is sent; `load` as in `Put`."""

    digest: Digest
    size_bytes: int
    load: Callable[[], bytes]
    if_absent: bool


@dataclass(frozen=True, slots=True)
class LargeObject:
    """An object that is sent in parts; `open` opens its file once a try, in a worker thread."""

    item: SourceObject
    open: Callable[[], SourceReader]
    if_absent: bool


class UploadListener:
    """Is told on the event loop what became of objects; these ones do nothing."""

    def on_bytes(self, size_bytes: int) -> None:
        """So many bytes more have been sent; negative: an attempt came to nothing."""

    def on_object(self, digest: Digest, *, existed: bool) -> None:
        """An object is in the store; `existed`: it was there already, whatever it holds."""


class Uploads:
    """Takes objects as fast as the store does; made by `open_uploads`."""

    def __init__(
        self,
        store: RemoteStore,
        settings: TransferSettings,
        listener: UploadListener,
        group: TaskGroup,
    ) -> None:
        self._store = store
        self._listener = listener
        self._group = group
        self.failure: Exception | None = None
        self._budget = Budget(
            objects=settings.objects_in_flight, size_bytes=settings.bytes_in_flight
        )
        self._large_places = anyio.Semaphore(_LARGE_AT_ONCE)

    async def put_small(self, batch: Sequence[SmallObject]) -> None:
        """Begin to upload a batch once there is room for it."""
        size_bytes = sum(one.size_bytes for one in batch)
        place = await self._budget.acquire(objects=len(batch), size_bytes=size_bytes)
        self._group.start_soon(self._put_batch, batch, place.release)

    async def put_large(self, large: LargeObject) -> None:
        """Begin to upload a large object once it is its turn."""
        await self._large_places.acquire()
        self._group.start_soon(self._put_large, large)

    def start(self, work: Callable[[T], Coroutine[Any, Any, None]], argument: T) -> None:
        """Run something beside the uploads, and cancel it with them."""
        self._group.start_soon(work, argument)

    async def _put_batch(self, batch: Sequence[SmallObject], release: Callable[[], None]) -> None:
        puts = [
            Put(object_key(one.digest), one.load, one.size_bytes, if_absent=one.if_absent)
            for one in batch
        ]
        try:
            outcomes = await self._store.put_batch(puts)
        finally:
            release()
        for one, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, SnapsyncError):
                self.fail(outcome)
                return
            self._listener.on_bytes(one.size_bytes)
            self._listener.on_object(one.digest, existed=outcome.existed)

    async def _put_large(self, large: LargeObject) -> None:
        try:
            for tries_left in reversed(range(_LARGE_TRIES)):
                try:
                    await self._put_large_once(large)
                except SnapsyncError as error:
                    if not error.retryable or not tries_left:
                        self.fail(error)
                        return
                else:
                    return
        finally:
            self._large_places.release()

    async def _put_large_once(self, large: LargeObject) -> None:
        item = large.item
        reader = await to_thread.run_sync(large.open)
        try:
            async with aclosing(self._parts(reader, item)) as parts:
                stored = await self._store.put_large(
                    object_key(item.digest),
                    parts,
                    size_bytes=item.size_bytes,
                    if_absent=large.if_absent,
                )
        except BaseException:
            self._listener.on_bytes(reader.left_bytes - item.size_bytes)
            raise
        finally:
            reader.close()
        self._listener.on_bytes(reader.left_bytes)
        self._listener.on_object(item.digest, existed=stored.existed)

    async def _parts(self, reader: SourceReader, item: SourceObject) -> AsyncGenerator[bytes, None]:
        """Read the file part by part. The last part is only given once the hash is right, so that
        a store never gets all bytes of a wrong body."""
        part_bytes = self._store.large_part_bytes
        left = item.size_bytes
        while left:
            part = await to_thread.run_sync(reader.read, min(part_bytes, left))
            left -= len(part)
            if not left:
                await to_thread.run_sync(reader.check_end)
            self._listener.on_bytes(len(part))
            yield part

    def fail(self, error: Exception) -> None:
        """Stop everything; the first error counts."""
        if self.failure is None:
            self.failure = error
        self._group.cancel_scope.cancel()


@asynccontextmanager
async def open_uploads(
    store: RemoteStore, settings: TransferSettings, listener: UploadListener
) -> AsyncIterator[Uploads]:
    """Give `Uploads` for the length of the block, which ends when everything has arrived.

    The first failure, also one of the block itself, cancels everything and is raised once nothing
    is under way any more.
    """
    return_large_blocks()
    async with anyio.create_task_group() as group:
        uploads = Uploads(store, settings, listener, group)
        try:
            yield uploads
        except Exception as error:  # noqa: BLE001  # raised below, not wrapped in a group
            uploads.fail(error)
    if uploads.failure is not None:
        raise uploads.failure
