"""A store in this process's memory that fails when and how it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Container,
    Sequence,
)
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from snapd.model.errors import (
    ConditionFailed,
    ConnectionLost,
    KeyMissing,
    SnapsyncError,
    SourceChanged,
    StoreFailing,
    StoreMissing,
)
from snapd.model.ids import digest_of
from snapd.model.settings import MIB
from snapd.model.uris import StoreUri, parse_store_uri
from snapd.remote.base import (
    ALWAYS,
    Condition,
    Document,
    Get,
    GetOutcome,
    Got,
    HeadOutcome,
    ObjectInfo,
    Operation,
    Put,
    PutOutcome,
    Sink,
    Stored,
    item_error,
)

T = TypeVar("T")

_PIECE_BYTES = 64 * 1024


class Stall:
    """A point where a request hangs until somebody releases it or it is cancelled."""

    def __init__(self, after_bytes: int = 0) -> None:
        self.after_bytes = after_bytes
        self.reached = anyio.Event()
        self._released = anyio.Event()

    async def pass_through(self) -> None:
        """Hang here."""
        self.reached.set()
        await self._released.wait()

    def release(self) -> None:
        """Let every request that hangs here, or will arrive, go on."""
        self._released.set()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with requests of one operation on keys of one pattern.

    `key` is a shell pattern. `nth` counts the requests of this operation on the same key, from 1;
    None means each. The body of a GET can be altered, and cut short behind `cut_bytes`.
    """

    operation: Operation
    key: str = "*"
    nth: Container[int] | None = None
    error: SnapsyncError | None = None
    alter: Callable[[bytes], bytes] | None = None
    cut_bytes: int | None = None
    stall: Stall | None = None
    delay_seconds: float = 0.0

    def strikes(self, operation: Operation, key: str, count: int) -> bool:
        """Tell whether the `count`-th request of `operation` on `key` meets this fault."""
        planned = self.nth is None or count in self.nth
        return planned and self.operation == operation and fnmatchcase(key, self.key)


@dataclass
class Faults:
    """The plan of what goes wrong, and the count of what was asked."""

    plan: list[Fault] = field(default_factory=list)
    requests: Counter[tuple[Operation, str]] = field(default_factory=Counter)

    def add(self, fault: Fault) -> Fault:
        """Put one more fault behind those that are planned; the first that strikes counts."""
        self.plan.append(fault)
        return fault

    def meet(self, operation: Operation, key: str) -> Fault | None:
        """Count a request and tell what is wrong with it."""
        self.requests[operation, key] += 1
        count = self.requests[operation, key]
        return next((fault for fault in self.plan if fault.strikes(operation, key, count)), None)

    def count(self, operation: Operation) -> int:
        """Tell how many requests of `operation` were made, over all keys."""
        return sum(n for (made, _), n in self.requests.items() if made == operation)


class MemoryStore:
    """The whole contract in process; `objects` is open to tests, `faults` says what goes wrong."""

    def __init__(
        self,
        uri: StoreUri | str = "memory://store",
        *,
        faults: Faults | None = None,
        exists: bool = True,
        large_part_bytes: int = 8 * MIB,
    ) -> None:
        self._uri = parse_store_uri(uri) if isinstance(uri, str) else uri
        self._large_part_bytes = large_part_bytes
        self._writing = threading.Lock()
        self.objects: dict[str, bytes] = {}
        self.exists = exists
        self.faults = faults if faults is not None else Faults()

    @property
    def uri(self) -> StoreUri:
        """The URI that this store was opened with."""
        return self._uri

    @property
    def large_part_bytes(self) -> int:
        """The size of every part but the last that `put_large` is given."""
        return self._large_part_bytes

    @property
    def requests(self) -> Counter[tuple[Operation, str]]:
        """How often each operation was asked of each key; a ranged GET counts for its key."""
        return self.faults.requests

    def describe(self) -> str:
        """Name the backend."""
        return str(self._uri)

    async def get_batch(self, gets: Sequence[Get]) -> list[GetOutcome]:
        """Read many objects or ranges into their sinks, each in a worker thread."""
        return await _side_by_side([partial(self._get_into_sink, get) for get in gets])

    async def head_batch(self, keys: Sequence[str]) -> list[HeadOutcome]:
        """Look at many keys, side by side."""
        return await _side_by_side([partial(self._head, key) for key in keys])

    async def put_batch(self, puts: Sequence[Put]) -> list[PutOutcome]:
        """Write many small objects; each is loaded in a worker thread."""
        return await _side_by_side([partial(self._put, put) for put in puts])

    async def put_large(
        self, key: str, parts: AsyncIterable[bytes], *, size_bytes: int, if_absent: bool = True
    ) -> Stored:
        """Write one object from consecutive parts; visible once the last one has arrived."""
        await self._suffer("put_large", key)
        self._check_exists()
        if if_absent and key in self.objects:
            return Stored(digest_of(self.objects[key]), existed=True)
        body = b"".join([part async for part in parts])
        if len(body) != size_bytes:
            raise SourceChanged(
                f"{key}: the source gave {len(body)} bytes instead of {size_bytes}", key=key
            )
        return self._store(key, body, if_absent=if_absent)

    async def get(self, key: str, *, limit_bytes: int) -> Document:
        """Read a document whole; one of more than `limit_bytes` is `StoreFailing`."""
        fault = await self._suffer("get_document", key)
        data = self._altered(fault, self._read(key))
        if len(data) > limit_bytes:
            raise StoreFailing(
                f"{self._uri} {key}: {len(data)} bytes, and at most {limit_bytes} are accepted",
                key=key,
                limit_bytes=limit_bytes,
            )
        return Document(data, digest_of(data))

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        """Write a document; raises `ConditionFailed` and writes nothing if the condition fails."""
        await self._suffer("put_document", key)
        self._check_exists()
        with self._writing:
            self._check_condition(key, condition)
            self.objects[key] = bytes(data)
        return Stored(digest_of(data))

    async def delete(self, key: str) -> None:
        """Remove a key; removing an absent one is no error."""
        await self._suffer("delete", key)
        self._check_exists()
        self.objects.pop(key, None)

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """Walk all keys that start with `prefix`, in byte order."""
        await self._suffer("list", prefix)
        self._check_exists()
        for key in sorted(self.objects, key=str.encode):
            if key.startswith(prefix) and (data := self.objects.get(key)) is not None:
                yield ObjectInfo(key, len(data))

    async def _get_into_sink(self, get: Get) -> GetOutcome:
        fault = await self._suffer("get", get.key, stalls_later=True)
        body = self._altered(fault, self._cut_range(get))
        whole = len(body)
        if fault is not None and fault.cut_bytes is not None:
            body = body[: fault.cut_bytes]
        await _run(get.key, get.sink.start)
        done = 0
        if fault is not None and fault.stall is not None:
            done = fault.stall.after_bytes
            await _run(get.key, _write, get.sink, body[:done])
            await fault.stall.pass_through()
        await _run(get.key, _write, get.sink, body[done:])
        if len(body) < whole:
            raise ConnectionLost(
                f"{self._uri} {get.key}: {len(body)} of {whole} bytes arrived", key=get.key
            )
        await _run(get.key, get.sink.finish)
        return Got(whole)

    async def _head(self, key: str) -> HeadOutcome:
        await self._suffer("head", key)
        self._check_exists()
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), digest_of(data))

    async def _put(self, put: Put) -> PutOutcome:
        await self._suffer("put", put.key)
        self._check_exists()
        if put.if_absent and put.key in self.objects:
            return Stored(digest_of(self.objects[put.key]), existed=True)
        return self._store(put.key, await _run(put.key, put.load), if_absent=put.if_absent)

    async def _suffer(
        self, operation: Operation, key: str, *, stalls_later: bool = False
    ) -> Fault | None:
        fault = self.faults.meet(operation, key)
        await anyio.sleep(fault.delay_seconds if fault is not None else 0)
        if fault is not None and fault.stall is not None and not stalls_later:
            await fault.stall.pass_through()
        if fault is not None and fault.error is not None:
            raise fault.error
        return fault

    def _altered(self, fault: Fault | None, body: bytes) -> bytes:
        return body if fault is None or fault.alter is None else fault.alter(body)

    def _check_exists(self) -> None:
        if not self.exists:
            raise StoreMissing(f"{self._uri}: there is no such store", uri=str(self._uri))

    def _read(self, key: str) -> bytes:
        self._check_exists()
        try:
            return self.objects[key]
        except KeyError:
            raise KeyMissing(f"{self._uri} has nothing at {key}", key=key) from None

    def _cut_range(self, get: Get) -> bytes:
        body = self._read(get.key)
        if get.byte_range is None:
            return body
        begin = get.byte_range.offset
        if begin >= len(body):
            raise KeyMissing(
                f"{self._uri} {get.key}: no byte {begin} in {len(body)} bytes",
                key=get.key,
                size_bytes=len(body),
            )
        return body[begin : begin + get.byte_range.length]

    def _store(self, key: str, body: bytes, *, if_absent: bool) -> Stored:
        with self._writing:
            if if_absent and key in self.objects:
                return Stored(digest_of(self.objects[key]), existed=True)
            self.objects[key] = bytes(body)
        return Stored(digest_of(body))

    def _check_condition(self, key: str, condition: Condition) -> None:
        data = self.objects.get(key)
        if condition.kind == "if_absent" and data is not None:
            raise ConditionFailed(f"{self._uri} {key}: it exists already", key=key)
        if condition.kind == "if_match" and (data is None or digest_of(data) != condition.etag):
            raise ConditionFailed(f"{self._uri} {key}: it has changed since it was read", key=key)


class MemoryStores:
    """The memory stores of one process by URI; whoever owns it decides who shares them."""

    def __init__(self) -> None:
        self._stores: dict[StoreUri, MemoryStore] = {}

    def store(self, uri: StoreUri) -> MemoryStore:
        """Find the store of that URI; it is made, empty, when it is first asked for."""
        return self._stores.setdefault(uri, MemoryStore(uri))


def _write(sink: Sink, body: bytes) -> None:
    for begin in range(0, len(body), _PIECE_BYTES):
        anyio.from_thread.check_cancelled()
        sink.write(memoryview(body)[begin : begin + _PIECE_BYTES])


async def _run(key: str, work: Callable[..., T], *arguments: Any) -> T:
    """Call a sink or a source in a worker thread; what it raises becomes an error of its item."""
    try:
        return await anyio.to_thread.run_sync(work, *arguments)
    except SnapsyncError:
        raise
    except Exception as error:
        raise item_error(error, key) from error


async def _side_by_side(requests: Sequence[Callable[[], Awaitable[T]]]) -> list[T | SnapsyncError]:
    outcomes: dict[int, T | SnapsyncError] = {}

    async def settle(index: int, request: Callable[[], Awaitable[T]]) -> None:
        try:
            outcomes[index] = await request()
        except SnapsyncError as error:
            outcomes[index] = error

    async with anyio.create_task_group() as group:
        for index, request in enumerate(requests):
            group.start_soon(settle, index, request)
    return [outcomes[index] for index in range(len(requests))]
