"""A store around a store that asks again for what failed in passing."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple, TypeVar

import anyio

from snapd.model.errors import ConditionFailed, SnapsyncError
from snapd.model.units import format_duration
from snapd.model.uris import StoreUri
from snapd.remote.base import (
    ALWAYS,
    Condition,
    Document,
    Get,
    GetOutcome,
    HeadOutcome,
    ObjectInfo,
    Operation,
    Put,
    PutOutcome,
    RemoteStore,
    Stored,
)
from snapd.runtime.observer import Observer, SilentObserver
from snapd.runtime.retry import Backoff

T = TypeVar("T")
Item = TypeVar("Item")


class Timing(NamedTuple):
    """Clock, dice and bed of whoever retries."""

    now: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


def is_passing(error: SnapsyncError) -> bool:
    """Tell whether the same request may succeed later; a document that is too large never will."""
    return error.retryable and "limit_bytes" not in error.details


class Attempts:
    """The tries of one call: counts them, waits between them, and says so when it gives up."""

    def __init__(
        self, backoff: Backoff, operation: Operation, observer: Observer, timing: Timing
    ) -> None:
        self._backoff = backoff
        self._operation = operation
        self._observer = observer
        self._timing = timing
        self.restart()

    def restart(self) -> None:
        """Begin to count anew: what was asked for made progress."""
        self.failures = 0
        self._began = self._timing.now()

    async def wait(self, errors: Sequence[SnapsyncError]) -> bool:
        """Take note of one more failed try and sleep; False, without sleep, if it was the last.

        Every error is one request that is going to be asked again; the longest Retry-After counts.
        """
        self.failures += 1
        delay = self._backoff.delay_seconds(
            self.failures,
            retry_after_seconds=max(_retry_after_seconds(error) for error in errors),
            random=self._timing.random,
        )
        elapsed = self._timing.now() - self._began
        if not self._backoff.allows(self.failures, elapsed_seconds=elapsed, delay_seconds=delay):
            return False
        for error in errors:
            self._observer.on_retry(self._operation, error.code)
        await self._timing.sleep(delay)
        return True

    def final(self, error: SnapsyncError) -> SnapsyncError:
        """Make the last cause say how often and how long it was tried; one try goes unsaid."""
        if self.failures <= 1:
            return error
        seconds = round(self._timing.now() - self._began, 3)
        tried = f"{self.failures} attempts over {format_duration(seconds)}"
        details = error.details | {"attempts": self.failures, "elapsed_seconds": seconds}
        ended = type(error)(f"{error.message} (gave up after {tried})", hint=error.hint, **details)
        ended.__cause__ = error
        return ended


def _retry_after_seconds(error: SnapsyncError) -> float:
    asked = error.details.get("retry_after_seconds")
    return float(asked) if isinstance(asked, int | float) else 0.0


async def retry_call(
    backoff: Backoff,
    operation: Operation,
    call: Callable[[], Awaitable[T]],
    *,
    observer: Observer | None = None,
    timing: Timing | None = None,
) -> T:
    """Await `call()` until it succeeds, fails for good, or `backoff` ends; raises the last cause.

    For backends whose one operation is many requests (the parts of an upload).
    """
    attempts = Attempts(backoff, operation, observer or SilentObserver(), timing or Timing())
    while True:
        try:
            return await call()
        except SnapsyncError as error:
            if not is_passing(error):
                raise
            failed = error
        if not await attempts.wait([failed]):
            raise attempts.final(failed)


class Retrying:
    """Repeats what failed in passing, with full jitter, and of a batch only the failed items.

    What it does not repeat: errors that are not `retryable`; bytes that a sink refused; and
    `put_large`, whose parts are gone once they were read (backends repeat single parts by
    `retry_call`). A conditional `put` whose answer was lost is settled by reading the key back.
    """

    def __init__(
        self,
        inner: RemoteStore,
        backoff: Backoff,
        observer: Observer,
        *,
        timing: Timing | None = None,
    ) -> None:
        self._inner = inner
        self._backoff = backoff
        self._observer = observer
        self._timing = timing or Timing()

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
        return f"retrying({self._inner.describe()})"

    async def get_batch(self, gets: Sequence[Get]) -> list[GetOutcome]:
        """Read many objects or ranges into their sinks; a repeated one starts its sink anew."""
        return await _repeat_failed(self._attempts("get"), gets, self._inner.get_batch)

    async def head_batch(self, keys: Sequence[str]) -> list[HeadOutcome]:
        """Look at many keys, side by side."""
        return await _repeat_failed(self._attempts("head"), keys, self._inner.head_batch)

    async def put_batch(self, puts: Sequence[Put]) -> list[PutOutcome]:
        """Write many small objects; a repeated one is loaded again."""
        return await _repeat_failed(self._attempts("put"), puts, self._inner.put_batch)

    async def put_large(
        self, key: str, parts: AsyncIterable[bytes], *, size_bytes: int, if_absent: bool = True
    ) -> Stored:
        """Write one large object; asked once."""
        return await self._inner.put_large(key, parts, size_bytes=size_bytes, if_absent=if_absent)

    async def get(self, key: str, *, limit_bytes: int) -> Document:
        """Read a document whole."""
        return await self._call(
            "get_document", partial(self._inner.get, key, limit_bytes=limit_bytes)
        )

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        """Write a document.

        If a try failed in passing and the next one finds the condition broken, the first may have
        been the one that broke it: the key is read, and if it holds `data` this write is done.
        """
        tries = 0

        async def once() -> Stored:
            nonlocal tries
            tries += 1
            try:
                return await self._inner.put(key, data, condition)
            except ConditionFailed:
                if tries == 1 or (stored := await self._written(key, data)) is None:
                    raise
                return stored

        return await self._call("put_document", once)

    async def delete(self, key: str) -> None:
        """Remove a key; removing an absent one is no error."""
        await self._call("delete", partial(self._inner.delete, key))

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """Walk all keys that start with `prefix`, in byte order.

        A walk that breaks begins again and skips what it gave; every key it gains is progress, so
        that only tries without a new key count.
        """
        attempts = self._attempts("list")
        last = b""
        while True:
            try:
                async with aclosing(self._inner.list(prefix)) as infos:
                    async for info in infos:
                        if (key := info.key.encode()) > last:
                            last = key
                            attempts.restart()
                            yield info
            except SnapsyncError as error:
                if not is_passing(error):
                    raise
                failed = error
            else:
                return
            if not await attempts.wait([failed]):
                raise attempts.final(failed)

    def _attempts(self, operation: Operation) -> Attempts:
        return Attempts(self._backoff, operation, self._observer, self._timing)

    async def _call(self, operation: Operation, call: Callable[[], Awaitable[T]]) -> T:
        return await retry_call(
            self._backoff, operation, call, observer=self._observer, timing=self._timing
        )

    async def _written(self, key: str, data: bytes) -> Stored | None:
        try:
            document = await self._inner.get(key, limit_bytes=len(data))
        except SnapsyncError as error:
            if is_passing(error):
                raise
            return None
        return Stored(document.etag) if document.data == data else None


async def _repeat_failed(
    attempts: Attempts,
    items: Sequence[Item],
    ask: Callable[[Sequence[Item]], Awaitable[list[T | SnapsyncError]]],
) -> list[T | SnapsyncError]:
    outcomes = await ask(items)
    while failed := _passing_failures(outcomes):
        if not await attempts.wait(list(failed.values())):
            for i, error in failed.items():
                outcomes[i] = attempts.final(error)
            break
        again = await ask([items[i] for i in failed])
        for i, outcome in zip(failed, again, strict=True):
            outcomes[i] = outcome
    return outcomes


def _passing_failures(outcomes: Sequence[object]) -> dict[int, SnapsyncError]:
    return {i: o for i, o in enumerate(outcomes) if isinstance(o, SnapsyncError) and is_passing(o)}
