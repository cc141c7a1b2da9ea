"""A store around a store that reports every request to an observer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TypeAlias

from snapd.model.errors import SnapsyncError
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
    Operation,
    Put,
    PutOutcome,
    RemoteStore,
    Stored,
)
from snapd.runtime.observer import Observer

OK = "ok"
CANCELLED = "cancelled"

_Ended: TypeAlias = list[tuple[object, int]]


class _Note:
    """What one single request ended with, as far as it went."""

    size_bytes = 0


class Metered:
    """Adds nothing but reports; sizes are those of bodies that arrived or were stored whole.

    The items of one batch share its time evenly, so that the sum over requests is the time spent
    asking. A request that was given up ends as `cancelled`.
    """

    def __init__(
        self,
        inner: RemoteStore,
        observer: Observer,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._observer = observer
        self._now = now

    @property
    def uri(self) -> StoreUri:
        """The URI that this store was opened with."""
        return self._inner.uri

    @property
    def large_part_bytes(self) -> int:
        """The size of every part but the last that `put_large` is given."""
        return self._inner.large_part_bytes

    def describe(self) -> str:
        """Name the chain of wrappers and the backend."""
        return f"metered({self._inner.describe()})"

    async def get_batch(self, gets: Sequence[Get]) -> list[GetOutcome]:
        """Read many objects or ranges into their sinks; one request each."""
        with self._batch("get", len(gets)) as ended:
            outcomes = await self._inner.get_batch(gets)
            ended.extend((o, o.size_bytes if isinstance(o, Got) else 0) for o in outcomes)
        return outcomes

    async def head_batch(self, keys: Sequence[str]) -> list[HeadOutcome]:
        """Look at many keys; an absent one is a success."""
        with self._batch("head", len(keys)) as ended:
            outcomes = await self._inner.head_batch(keys)
            ended.extend((o, 0) for o in outcomes)
        return outcomes

    async def put_batch(self, puts: Sequence[Put]) -> list[PutOutcome]:
        """Write many small objects; one request each."""
        with self._batch("put", len(puts)) as ended:
            outcomes = await self._inner.put_batch(puts)
            ended.extend((o, _sent(o, p.size_bytes)) for o, p in zip(outcomes, puts, strict=True))
        return outcomes

    async def put_large(
        self, key: str, parts: AsyncIterable[bytes], *, size_bytes: int, if_absent: bool = True
    ) -> Stored:
        """Write one large object; one request, however many parts it takes."""
        with self._single("put_large") as note:
            stored = await self._inner.put_large(
                key, parts, size_bytes=size_bytes, if_absent=if_absent
            )
            note.size_bytes = _sent(stored, size_bytes)
        return stored

    async def get(self, key: str, *, limit_bytes: int) -> Document:
        """Read a document whole."""
        with self._single("get_document") as note:
            document = await self._inner.get(key, limit_bytes=limit_bytes)
            note.size_bytes = len(document.data)
        return document

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        """Write a document."""
        with self._single("put_document") as note:
            stored = await self._inner.put(key, data, condition)
            note.size_bytes = len(data)
        return stored

    async def delete(self, key: str) -> None:
        """Remove a key."""
        with self._single("delete"):
            await self._inner.delete(key)

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """Walk all keys that start with `prefix`; one request, which lasts as long as the walk.

        A walk that its reader leaves early counts as a success.
        """
        began = self._now()
        outcome = CANCELLED
        try:
            async with aclosing(self._inner.list(prefix)) as infos:
                async for info in infos:
                    yield info
            outcome = OK
        except GeneratorExit:
            outcome = OK
            raise
        except SnapsyncError as error:
            outcome = error.code
            raise
        finally:
            self._observer.on_requests("list", outcome, 1, self._now() - began, 0)

    @contextmanager
    def _single(self, operation: Operation) -> Iterator[_Note]:
        began = self._now()
        note = _Note()
        outcome = CANCELLED
        try:
            yield note
            outcome = OK
        except SnapsyncError as error:
            outcome = error.code
            raise
        finally:
            seconds = self._now() - began
            self._observer.on_requests(operation, outcome, 1, seconds, note.size_bytes)

    @contextmanager
    def _batch(self, operation: Operation, count: int) -> Iterator[_Ended]:
        began = self._now()
        ended: _Ended = []
        try:
            yield ended
        finally:
            seconds = (self._now() - began) / max(count, 1)
            sums = {CANCELLED: (count - len(ended), 0)}
            for outcome, size_bytes in ended:
                code = outcome.code if isinstance(outcome, SnapsyncError) else OK
                alike, moved_bytes = sums.get(code, (0, 0))
                sums[code] = alike + 1, moved_bytes + size_bytes
            for code, (alike, moved_bytes) in sums.items():
                if alike:
                    self._observer.on_requests(operation, code, alike, seconds, moved_bytes)


def _sent(outcome: PutOutcome, size_bytes: int) -> int:
    return size_bytes if isinstance(outcome, Stored) and not outcome.existed else 0
