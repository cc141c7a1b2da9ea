"""A store in a directory: `file:///path`, on a local disk or a mounted network file system."""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from functools import partial
from io import FileIO
from itertools import islice
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread
from anyio.from_thread import check_cancelled

from snapd.model.errors import SnapsyncError, SourceChanged, TimedOut
from snapd.model.settings import MIB, TransferSettings
from snapd.model.units import format_duration
from snapd.model.uris import StoreUri
from snapd.remote.base import (
    ALWAYS,
    Condition,
    Document,
    Get,
    GetOutcome,
    Got,
    HeadOutcome,
    ObjectInfo,
    Put,
    PutOutcome,
    Stored,
    item_error,
)
from snapd.remote.durability import Barrier
from snapd.remote.files import CHUNK_BYTES, Staged, StoreFiles

T = TypeVar("T")
Item = TypeVar("Item")
Ts = TypeVarTuple("Ts")

_PAGE_KEYS = 1000
_CLEANUP_SECONDS = 30.0
_LOCK_PAUSE_SECONDS = 0.002
_LOCK_PAUSE_MAX_SECONDS = 0.1


class DirectoryStore:
    """The contract on a directory; every system call runs in one of a few threads of this store.

    A missing root is `StoreMissing` to readers and made by the first write. Documents have an ETag,
    the BLAKE3 of the content, which reading and writing them tell. Writers of documents, also in
    other processes and on other nodes where the file system knows `flock`, take turns.
    """

    def __init__(self, uri: StoreUri, settings: TransferSettings, *, threads: int = 4) -> None:
        self._uri = uri
        self._files = StoreFiles(uri)
        self._threads = threads
        self._limiter = anyio.CapacityLimiter(threads)
        self._documents = anyio.Lock()
        self._patience_seconds = settings.stall_timeout_seconds
        self._swept = False
        self._barrier = Barrier(partial(self._run, self._files.sync_all))

    @property
    def uri(self) -> StoreUri:
        """The URI that this store was opened with."""
        return self._uri

    @property
    def large_part_bytes(self) -> int:
        """The size of every part but the last that `put_large` is given."""
        return 8 * MIB

    def describe(self) -> str:
        """Name the backend."""
        return str(self._uri)

    async def get_batch(self, gets: Sequence[Get]) -> list[GetOutcome]:
        """Read many objects or ranges into their sinks."""

        def read_one() -> Callable[[Get], Got]:
            buffer = bytearray(CHUNK_BYTES)
            return lambda get: Got(self._files.read_into_sink(get, buffer, check_cancelled))

        return await self._each(gets, read_one)

    async def head_batch(self, keys: Sequence[str]) -> list[HeadOutcome]:
        """Look at many keys."""
        return await self._each(keys, lambda: self._files.head)

    async def put_batch(self, puts: Sequence[Put]) -> list[PutOutcome]:
        """Write many small objects; contents, then names, are made durable together."""
        await self._sweep()
        made: list[Staged] = []
        try:
            staged = await self._each(puts, lambda: partial(self._stage, made))
            return await self._publish(puts, staged)
        finally:
            with anyio.move_on_after(_CLEANUP_SECONDS, shield=True):
                await self._run(_close_all, made)

    def _stage(self, made: list[Staged], put: Put) -> Staged | None:
        """Write a body where nobody sees it; None: there is such an object already."""
        if put.if_absent and self._files.holds(put.key):
            return None
        try:
            body = put.load()
        except SnapsyncError:
            raise
        except Exception as error:
            raise item_error(error, put.key) from error
        check_cancelled()
        staged = self._files.stage(put.key)
        made.append(staged)
        staged.write(body)
        staged.seal(durable=not self._files.syncs_at_once(put.key))
        return staged

    async def _publish(
        self, puts: Sequence[Put], staged: Sequence[Staged | SnapsyncError | None]
    ) -> list[PutOutcome]:
        waiting = [index for index, each in enumerate(staged) if isinstance(each, Staged)]
        outcomes: list[PutOutcome] = [
            each if isinstance(each, SnapsyncError) else Stored("", existed=True) for each in staged
        ]

        def publish(index: int) -> Stored:
            each = staged[index]
            assert isinstance(each, Staged)
            return each.publish(if_absent=puts[index].if_absent)

        if not waiting:
            return outcomes
        try:
            # A name never comes before the content that it promises, not even in a power cut.
            at_once = self._files.syncs_at_once(puts[waiting[0]].key)
            if at_once:
                await self._barrier.wait()
            published = await self._each(waiting, lambda: publish)
            if at_once:
                await self._barrier.wait()
            else:
                await self._run(self._files.sync_names, _made(puts, waiting, published))
        except SnapsyncError as error:
            published = [error] * len(waiting)
        for index, outcome in zip(waiting, published, strict=True):
            outcomes[index] = outcome
        return outcomes

    async def put_large(
        self, key: str, parts: AsyncIterable[bytes], *, size_bytes: int, if_absent: bool = True
    ) -> Stored:
        """Write one large object from consecutive parts, each of which goes to disk at once."""
        await self._sweep()
        if if_absent and await self._run(self._files.holds, key):
            return Stored("", existed=True)
        async with self._staged(key) as staged:
            async for part in parts:
                await self._run(staged.write, part)
            if staged.size_bytes != size_bytes:
                raise SourceChanged(
                    f"{key}: the source gave {staged.size_bytes} bytes instead of {size_bytes}",
                    key=key,
                )
            return await self._run(self._finish, staged, if_absent)

    async def get(self, key: str, *, limit_bytes: int) -> Document:
        """Read a document whole; one of more than `limit_bytes` is `StoreFailing`."""
        return await self._run(self._files.read_document, key, limit_bytes)

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        """Write a document; raises `ConditionFailed` and writes nothing if the condition fails."""
        await self._sweep()
        write = partial(self._files.write_document, key, data, condition)
        if condition.kind == "if_absent":
            return await self._run(write)
        async with self._locked(key):
            return await self._run(write)

    async def delete(self, key: str) -> None:
        """Remove a key; removing an absent one is no error."""
        if await self._run(self._files.head, key) is None:
            return
        async with self._locked(key):
            await self._run(self._files.delete, key)

    async def _each(
        self, items: Sequence[Item], make_worker: Callable[[], Callable[[Item], T]]
    ) -> list[T | SnapsyncError]:
        """Let a few threads take items until none is left; each thread has a worker of its own."""
        outcomes: dict[int, T | SnapsyncError] = {}
        waiting = deque(enumerate(items))

        def work() -> None:
            worker = make_worker()
            while waiting:
                check_cancelled()
                with suppress(IndexError):
                    index, item = waiting.popleft()
                    outcomes[index] = _outcome(worker, item)

        async with anyio.create_task_group() as group:
            for _ in range(min(self._threads, len(items))):
                group.start_soon(self._run, work)
        return [outcomes[index] for index in range(len(items))]

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """Walk all keys that start with `prefix`, in byte order, a page a thread hop."""
        walk = self._files.walk(prefix, check_cancelled)
        while page := await self._run(_page, walk):
            for info in page:
                yield info

    def _finish(self, staged: Staged, if_absent: bool) -> Stored:
        staged.seal(durable=True)
        stored = staged.publish(if_absent=if_absent)
        self._files.sync_names([staged.key])
        return stored

    @asynccontextmanager
    async def _staged(self, key: str) -> AsyncIterator[Staged]:
        staged = await self._run(self._files.stage, key)
        try:
            yield staged
        finally:
            with anyio.move_on_after(_CLEANUP_SECONDS, shield=True):
                await self._run(staged.close)

    @asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[None]:
        async with self._documents:
            lock = await self._run(self._files.open_lock, key)
            try:
                await self._wait_for_turn(lock, key)
                yield
            finally:
                with anyio.move_on_after(_CLEANUP_SECONDS, shield=True):
                    await self._run(lock.close)

    async def _wait_for_turn(self, lock: FileIO, key: str) -> None:
        # The kernel wakes only threads that can't be cancelled; so ask again, ever less often.
        pause_seconds = _LOCK_PAUSE_SECONDS
        try:
            with anyio.fail_after(self._patience_seconds):
                while not await self._run(self._files.try_lock, lock, key):
                    await anyio.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, _LOCK_PAUSE_MAX_SECONDS)
        except TimeoutError as error:
            raise TimedOut(
                f"{self._uri} {key}: another writer held the lock for"
                f" {format_duration(self._patience_seconds)}",
                key=key,
            ) from error

    async def _sweep(self) -> None:
        if not self._swept:
            self._swept = True
            await self._run(self._files.sweep)

    async def _run(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._limiter)


def _made(puts: Sequence[Put], indexes: Sequence[int], outcomes: Sequence[PutOutcome]) -> list[str]:
    return [
        puts[index].key
        for index, outcome in zip(indexes, outcomes, strict=True)
        if isinstance(outcome, Stored) and not outcome.existed
    ]


def _close_all(staged: Sequence[Staged]) -> None:
    for each in staged:
        each.close()


def _page(walk: Iterator[ObjectInfo]) -> list[ObjectInfo]:
    return [*islice(walk, _PAGE_KEYS)]


def _outcome(worker: Callable[[Item], T], item: Item) -> T | SnapsyncError:
    try:
        return worker(item)
    except SnapsyncError as error:
        return error
