"""A store in a bucket: `s3://` at AWS or any S3 server, `gs://` at Google.

Bytes move in the transport's threads; who asks and where is the account's business.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from urllib.parse import quote

from snapd.model.errors import (
    ActionFailed,
    ConditionFailed,
    ConditionsMissing,
    InvalidStoreUri,
    SnapsyncError,
    StoreFailing,
)
from snapd.model.settings import StoreSettings, TransferSettings
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
)
from snapd.remote.credentials import Account
from snapd.remote.exchanges import Reply, Request
from snapd.remote.lanes import Lanes, open_lanes
from snapd.remote.s3_documents import Page, parse_page
from snapd.remote.s3_errors import code_of
from snapd.remote.s3_multipart import PART_BYTES, Upload, room_for_parts
from snapd.remote.s3_wire import BUCKET_TARGET, S3Wire
from snapd.remote.transport import open_transport
from snapd.runtime.observer import Observer
from snapd.runtime.retry import Backoff

_PLAIN_KEY = re.compile(r"[a-z0-9./]*", re.ASCII)
"""Keys of objects and manifests, which need no quoting."""
IF_ABSENT_HEADER = ("If-None-Match: *",)
PAGE_KEYS = 1000


class S3Store:
    """Keeps the contract of `snapd.remote.base`; made by `open_s3`."""

    def __init__(self, uri: StoreUri, wire: S3Wire, backoff: Backoff, observer: Observer) -> None:
        self._uri = uri
        self._wire = wire
        self._backoff = backoff
        self._observer = observer
        self._room = room_for_parts()
        self._root = f"{uri.path}/" if uri.path else ""
        self._root_target = "/" + quote(self._root, safe="/")
        # Google's S3 dialect does not promise conditions on writes; others say so when asked.
        self._conditional = uri.scheme != "gs"

    @property
    def uri(self) -> StoreUri:
        """The URI that this store was opened with."""
        return self._uri

    @property
    def large_part_bytes(self) -> int:
        """The size of every part but the last that `put_large` is given."""
        return PART_BYTES

    def describe(self) -> str:
        """Name the backend."""
        return str(self._uri)

    async def get_batch(self, gets: Sequence[Get]) -> list[GetOutcome]:
        """Read many objects or ranges into their sinks, side by side."""
        requests = [
            Request("GET", self._target(get.key), get.sink, get.small, get.byte_range)
            for get in gets
        ]
        replies = await self._wire.ask(requests)
        return [
            Got(reply.size_bytes, reply.facts) if reply.ok else self._wire.error(reply, get.key)
            for get, reply in zip(gets, replies, strict=True)
        ]

    async def head_batch(self, keys: Sequence[str]) -> list[HeadOutcome]:
        """Look at many keys, side by side."""
        replies = await self._wire.ask([Request("HEAD", self._target(key)) for key in keys])
        absent: HeadOutcome = None
        if any(reply.status == 404 for reply in replies):
            # The answer to HEAD has no body that would tell a missing key from a missing bucket.
            absent = await self._wire.bucket_error()
        return [
            absent if reply.status == 404 else self._looked_at(key, reply)
            for key, reply in zip(keys, replies, strict=True)
        ]

    def _looked_at(self, key: str, reply: Reply) -> HeadOutcome:
        if not reply.ok:
            return self._wire.error(reply, key)
        length = reply.header("content-length")
        if not length.isdigit():
            return StoreFailing(f"{self._wire.name(key)}: the store tells no size")
        return ObjectInfo(key, int(length), reply.header("etag"))

    async def put_batch(self, puts: Sequence[Put]) -> list[PutOutcome]:
        """Write many small objects, side by side; each body is in memory while it is sent."""
        replies = await self._wire.ask([self._put_request(put) for put in puts])
        if any(map(_lacks_conditions, replies)):
            self._conditional = False
            indices = [index for index, reply in enumerate(replies) if _lacks_conditions(reply)]
            again = await self._wire.ask([self._put_request(puts[index]) for index in indices])
            for index, reply in zip(indices, again, strict=True):
                replies[index] = reply
        return [self._put_outcome(put, reply) for put, reply in zip(puts, replies, strict=True)]

    def _put_request(self, put: Put) -> Request:
        return Request(
            "PUT", self._target(put.key), body=put.load, headers=self._absence(put.if_absent)
        )

    def _absence(self, wanted: bool) -> tuple[str, ...]:
        return IF_ABSENT_HEADER if wanted and self._conditional else ()

    def _put_outcome(self, put: Put, reply: Reply) -> PutOutcome:
        if reply.status == 412 and put.if_absent:
            return Stored(reply.header("etag"), existed=True)
        return Stored(reply.header("etag")) if reply.ok else self._wire.error(reply, put.key)

    async def put_large(
        self, key: str, parts: AsyncIterable[bytes], *, size_bytes: int, if_absent: bool = True
    ) -> Stored:
        """Write one large object in parts that travel side by side.

        Each request of it is repeated as the settings say. With `if_absent` an object that is there
        is found by a look before the first part is read.
        """
        if if_absent:
            [info] = await self.head_batch([key])
            if isinstance(info, SnapsyncError):
                raise info
            if info is not None:
                return Stored(info.etag, existed=True)
        upload = Upload(
            self._wire, key, self._target(key), self._backoff, self._observer, self._room
        )
        return await upload.run(parts, size_bytes, self._absence(if_absent))

    async def get(self, key: str, *, limit_bytes: int) -> Document:
        """Read a document whole; one of more than `limit_bytes` is `StoreFailing`."""
        reply = await self._wire.ask_one(Request("GET", self._target(key), limit_bytes=limit_bytes))
        if reply.overlong:
            raise StoreFailing(
                f"{self._wire.name(key)}: more than {limit_bytes} bytes", limit_bytes=limit_bytes
            )
        if not reply.ok:
            raise self._wire.error(reply, key)
        return Document(reply.body, reply.header("etag"))

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        """Write a document; raises `ConditionFailed` and writes nothing if the condition fails."""
        if condition.kind != "always" and not self._conditional:
            raise self._no_conditions(key)
        request = Request(
            "PUT", self._target(key), body=lambda: data, headers=_condition_headers(condition)
        )
        reply = await self._wire.ask_one(request)
        if condition.kind != "always" and _lacks_conditions(reply):
            raise self._no_conditions(key)
        if condition.kind == "if_match" and reply.status == 404 and code_of(reply) == "NoSuchKey":
            raise ConditionFailed(f"{self._wire.name(key)}: it does not exist any more")
        if not reply.ok:
            raise self._wire.error(reply, key)
        return Stored(reply.header("etag"))

    def _no_conditions(self, key: str) -> SnapsyncError:
        return ConditionsMissing(f"{self._wire.name(key)}: this store has no conditional writes")

    async def delete(self, key: str) -> None:
        """Remove a key; removing an absent one is no error."""
        reply = await self._wire.ask_one(Request("DELETE", self._target(key)))
        if reply.ok or (reply.status == 404 and code_of(reply) != "NoSuchBucket"):
            return
        raise self._wire.error(reply, key)

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """Walk all keys that start with `prefix`, in byte order, page by page."""
        given = ""
        continuation: str | None = ""
        while continuation is not None:
            page = await self._page(prefix, continuation)
            objects, continuation = page.objects, page.continuation
            if not _in_order(given, objects):
                objects, continuation = [*objects, *await self._rest(prefix, continuation)], None
                objects.sort(key=_byte_order)
            if not _in_order(given, objects):
                raise ActionFailed(
                    f"{self._wire.name(prefix)}: keys are listed out of order, after {given!r}",
                    hint="Too many keys for a store that does not list in the order of names.",
                )
            for info in objects:
                given = info.key
                yield info

    async def _rest(self, prefix: str, continuation: str | None) -> Sequence[ObjectInfo]:
        """Read all further pages; some servers list directories before what sorts below them."""
        objects: deque[ObjectInfo] = deque()
        while continuation is not None:
            page = await self._page(prefix, continuation)
            objects += page.objects
            continuation = page.continuation
        return objects

    async def _page(self, prefix: str, continuation: str) -> Page:
        # The parameters stand in the order in which they are signed.
        query = f"encoding-type=url&list-type=2&max-keys={PAGE_KEYS}"
        if continuation:
            query = f"continuation-token={quote(continuation, safe='')}&{query}"
        query += f"&prefix={quote(self._root + prefix, safe='')}"
        reply = await self._wire.ask_one(Request("GET", f"{BUCKET_TARGET}?{query}"))
        if not reply.ok:
            raise self._wire.error(reply, prefix)
        page = parse_page(reply.body, self._wire.name(prefix))
        begin = len(self._root)
        return Page(
            [ObjectInfo(one.key[begin:], one.size_bytes, one.etag) for one in page.objects],
            page.continuation,
        )

    def _target(self, key: str) -> str:
        return self._root_target + (key if _PLAIN_KEY.fullmatch(key) else quote(key, safe="/"))


def _condition_headers(condition: Condition) -> tuple[str, ...]:
    if condition.kind == "if_absent":
        return IF_ABSENT_HEADER
    return (f"If-Match: {condition.etag}",) if condition.kind == "if_match" else ()


def _byte_order(info: ObjectInfo) -> bytes:
    return info.key.encode()


def _in_order(given: str, objects: Sequence[ObjectInfo]) -> bool:
    names = [given.encode(), *map(_byte_order, objects)]
    return all(one <= other for one, other in pairwise(names))


def _lacks_conditions(reply: Reply) -> bool:
    return reply.status == 501 or code_of(reply) == "NotImplemented"


@asynccontextmanager
async def open_s3(
    uri: StoreUri,
    settings: StoreSettings,
    transfer: TransferSettings,
    observer: Observer,
    lanes: Lanes | None = None,
) -> AsyncIterator[S3Store]:
    """Open a bucket for the length of the block; without `lanes` with some of its own.

    Raises `InvalidStoreUri` for a prefix that HTTP would shorten, `CredentialsMissing`, and what
    else is wrong with the settings; the bucket itself is not asked before it is used.
    """
    if {".", ".."} & set(uri.path.split("/")):
        raise InvalidStoreUri(f"a store's prefix holds no '.' or '..': {str(uri)!r}")
    account = Account(uri, settings)
    await account.origin()
    tell = partial(observer.on_credentials, str(uri))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(account.kept_fresh(tell))
        if lanes is None:
            lanes = await stack.enter_async_context(open_lanes(transfer))
        traffic = open_transport(transfer, lanes, observer.on_transfer_limit)
        transport = await stack.enter_async_context(traffic)
        wire = S3Wire(uri, account, transport)
        yield S3Store(uri, wire, Backoff.of(transfer), observer)
