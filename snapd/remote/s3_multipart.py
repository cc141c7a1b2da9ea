"""One large object in parts, sent side by side: begun, completed by one request, or aborted."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator
from urllib.parse import quote

import anyio

from snapd.model.errors import SnapsyncError, SourceChanged
from snapd.remote.base import Stored
from snapd.remote.exchanges import Reply, Request
from snapd.remote.retrying import retry_call
from snapd.remote.s3_documents import parse_completed, parse_upload_id, render_completion
from snapd.remote.s3_errors import code_of
from snapd.remote.s3_wire import S3Wire
from snapd.runtime.limits import Budget, Reservation
from snapd.runtime.observer import Observer
from snapd.runtime.retry import Backoff

PART_BYTES = 8 * 1024 * 1024
PARTS_MAX = 10_000
PARTS_IN_FLIGHT = 12
"""Of all uploads to a store together: enough for a wide network, and a bound for memory."""
ABORT_SECONDS = 10.0


class Upload:
    """Writes one key. Each request is repeated by itself, because its part can't be read again."""

    def __init__(
        self,
        wire: S3Wire,
        key: str,
        target: str,
        backoff: Backoff,
        observer: Observer,
        room: Budget,
    ) -> None:
        self._wire = wire
        self._key = key
        self._target = target
        self._backoff = backoff
        self._observer = observer
        self._room = room
        self._etags: dict[int, str] = {}

    async def run(
        self, parts: AsyncIterable[bytes], size_bytes: int, condition: tuple[str, ...]
    ) -> Stored:
        """Send all parts and make the object visible; without success nothing is left behind.

        `condition` are the headers of the completing request. If its precondition fails the object
        is there already. Raises `SourceChanged` for parts that do not add up to `size_bytes`.
        """
        upload_id = await self._begin()
        query = f"uploadId={quote(upload_id, safe='')}"
        try:
            await self._send_all(regrouped(parts, size_bytes), size_bytes, query)
            stored = await self._complete(query, size_bytes, condition)
        except BaseException:
            await self._abort(query)
            raise
        if stored.existed:
            await self._abort(query)
        return stored

    async def _begin(self) -> str:
        reply = await self._ask(Request("POST", f"{self._target}?uploads=", body=bytes))
        return parse_upload_id(reply.body, self._wire.name(self._key))

    async def _send_all(self, parts: AsyncIterator[bytes], size_bytes: int, query: str) -> None:
        part_bytes = bytes_of_parts(size_bytes)
        sent_bytes = 0
        try:
            async with anyio.create_task_group() as senders:
                # A part is only read once there is room for it.
                room = await self._room.acquire(size_bytes=part_bytes)
                try:
                    number = 0
                    async for part in parts:
                        number += 1
                        sent_bytes += len(part)
                        senders.start_soon(self._send, part, number, query, room)
                        room = await self._room.acquire(size_bytes=part_bytes)
                finally:
                    room.release()
        except BaseExceptionGroup as group:
            raise first_cause(group) from group
        if sent_bytes != size_bytes:
            raise SourceChanged(
                f"{self._wire.name(self._key)}: {sent_bytes} bytes came, expected {size_bytes}"
            )

    async def _send(self, part: bytes, number: int, query: str, room: Reservation) -> None:
        target = f"{self._target}?partNumber={number}&{query}"
        try:
            reply = await self._ask(Request("PUT", target, body=lambda: part))
        finally:
            room.release()
        self._etags[number] = reply.header("etag")

    async def _ask(self, request: Request) -> Reply:
        async def once() -> Reply:
            reply = await self._wire.ask_one(request)
            if not reply.ok:
                raise self._wire.error(reply, self._key)
            return reply

        return await retry_call(self._backoff, "put_large", once, observer=self._observer)

    async def _complete(self, query: str, size_bytes: int, condition: tuple[str, ...]) -> Stored:
        body = render_completion([self._etags[number] for number in sorted(self._etags)])
        request = Request("POST", f"{self._target}?{query}", body=lambda: body, headers=condition)
        tries = 0

        async def once() -> Stored:
            nonlocal tries
            tries += 1
            reply = await self._wire.ask_one(request)
            if reply.status == 412:
                return Stored("", existed=True)
            if tries > 1 and code_of(reply) == "NoSuchUpload":
                return await self._completed_before(size_bytes, reply)
            if not reply.ok or code_of(reply):
                # An error may come late, inside an answer that began as a success.
                reply.status = max(reply.status, 500) if reply.ok else reply.status
                raise self._wire.error(reply, self._key)
            return Stored(parse_completed(reply.body, self._wire.name(self._key)))

        return await retry_call(self._backoff, "put_large", once, observer=self._observer)

    async def _completed_before(self, size_bytes: int, refusal: Reply) -> Stored:
        """Settle a completion whose answer was lost: the object is there, or it failed."""
        reply = await self._wire.ask_one(Request("HEAD", self._target))
        if reply.ok and reply.header("content-length") == str(size_bytes):
            return Stored(reply.header("etag"))
        raise self._wire.error(refusal, self._key)

    async def _abort(self, query: str) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(ABORT_SECONDS):
            try:
                await self._wire.ask_one(Request("DELETE", f"{self._target}?{query}"))
            except SnapsyncError:
                # The cause that led here is worth more; the bucket's lifecycle rule removes parts.
                return


def bytes_of_parts(size_bytes: int) -> int:
    """Choose the length of each part but the last, so that `PARTS_MAX` of them are enough."""
    return PART_BYTES * max(1, math.ceil(size_bytes / (PART_BYTES * PARTS_MAX)))


def room_for_parts() -> Budget:
    """Bound the parts that are in memory, over all uploads that are given the same room."""
    return Budget(objects=PARTS_IN_FLIGHT, size_bytes=PARTS_IN_FLIGHT * PART_BYTES)


async def regrouped(parts: AsyncIterable[bytes], size_bytes: int) -> AsyncIterator[bytes]:
    """Join parts until each is large enough that `PARTS_MAX` of them hold `size_bytes`.

    Parts that already are of `PART_BYTES` pass through uncopied where that is enough.
    """
    wanted = bytes_of_parts(size_bytes)
    kept: list[bytes] = []
    kept_bytes = 0
    async for part in parts:
        kept.append(part)
        kept_bytes += len(part)
        if kept_bytes >= wanted:
            yield kept[0] if len(kept) == 1 else b"".join(kept)
            kept, kept_bytes = [], 0
    if kept_bytes:
        yield b"".join(kept)


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Find the first error in a group, whose other members followed from it."""
    cause: BaseException = group
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause
