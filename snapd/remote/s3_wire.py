"""Requests to one bucket: signed as whoever we are now, asked once more when that has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from snapd.model.errors import SnapsyncError
from snapd.model.uris import StoreUri
from snapd.remote.base import ByteRange
from snapd.remote.credentials import Account
from snapd.remote.exchanges import Origin, Reply, Request
from snapd.remote.s3_errors import (
    error_of,
    is_expired,
    may_want_signed_body,
    moved_to,
    wants_digest,
)
from snapd.remote.transport import CurlTransport

BUCKET_TARGET = "/"


class S3Wire:
    """Asks a bucket; renews credentials and finds the bucket's region where the store says so."""

    def __init__(self, uri: StoreUri, account: Account, transport: CurlTransport) -> None:
        self._uri = uri
        self._account = account
        self._transport = transport
        self._endpoint = str(uri)
        self._bucket_seen = False

    async def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Run requests side by side; replies in their order, each asked once in good times.

        Never raises but when cancelled: credentials that are missing or can't be renewed are the
        error of every reply that needed them.
        """
        try:
            origin = await self._account.origin()
        except SnapsyncError as error:
            return [Reply(error=error) for _ in requests]
        self._endpoint = origin.base_url
        replies = await self._transport.run(requests, origin)
        await self._explain(requests, replies, origin)
        if any(map(is_expired, replies)):
            origin = await self._renew(requests, replies, origin)
        if any(_is_elsewhere(reply, origin) for reply in replies):
            await self._follow(requests, replies, origin)
        if any(reply.status in (400, 403) for reply in replies):
            await self._prove_bodies(requests, replies, origin)
        return replies

    async def ask_one(self, request: Request) -> Reply:
        """Run a single request."""
        return (await self.ask([request]))[0]

    def error(self, reply: Reply, key: str | None) -> SnapsyncError:
        """Say why a request about a key, or about the whole bucket, came to nothing."""
        return error_of(reply, self.name(key), self._endpoint)

    def name(self, key: str | None) -> str:
        """Name a key, or the store itself, for messages."""
        return str(self._uri) if key is None else f"{self._uri}/{key}"

    async def bucket_error(self) -> SnapsyncError | None:
        """Look whether the bucket is there, and say why not; asked until it was there once."""
        if self._bucket_seen:
            return None
        reply = await self.ask_one(Request("GET", f"{BUCKET_TARGET}?list-type=2&max-keys=0"))
        # Whoever may not list is told so only by a bucket that exists.
        self._bucket_seen = reply.ok or reply.status == 403
        return None if self._bucket_seen else self.error(reply, None)

    async def _renew(
        self, requests: Sequence[Request], replies: list[Reply], used: Origin
    ) -> Origin:
        try:
            origin = await self._account.renewed(used)
        except SnapsyncError as error:
            for reply in filter(is_expired, replies):
                reply.error = error
            return used
        expired = [index for index, reply in enumerate(replies) if is_expired(reply)]
        await self._again(requests, replies, origin, expired)
        return origin

    async def _again(
        self,
        requests: Sequence[Request],
        replies: list[Reply],
        origin: Origin,
        indices: Sequence[int],
    ) -> None:
        again = [requests[index] for index in indices]
        answers = await self._transport.run(again, origin)
        await self._explain(again, answers, origin)
        for index, reply in zip(indices, answers, strict=True):
            replies[index] = reply

    async def _prove_bodies(
        self, requests: Sequence[Request], replies: list[Reply], origin: Origin
    ) -> None:
        """Ask again for uploads that were refused, perhaps for want of a proof of the body.

        That happens once: from then on all bodies for this store are proven so.
        """
        lacking: list[tuple[Callable[[Reply], bool], Callable[[], None]]] = []
        if not origin.sends_digests:
            lacking.append((wants_digest, self._account.send_digests))
        if origin.leaves_bodies_to_tls:
            # Who refused them for want of a signature has not looked for the digest before.
            lacking += [(may_want_signed_body, self._account.sign_bodies), *lacking]
        for wanted, prove in lacking:
            refused = [
                index
                for index, reply in enumerate(replies)
                if requests[index].method == "PUT" and wanted(reply)
            ]
            if refused:
                prove()
                # What they were refused with stays if the credentials can't be had any more.
                with suppress(SnapsyncError):
                    await self._again(requests, replies, await self._account.origin(), refused)

    async def _explain(
        self, requests: Sequence[Request], replies: list[Reply], origin: Origin
    ) -> None:
        """Give refused HEADs, which carry no body, the error document that a GET is answered.

        If the GET is not refused, what refused the HEADs has passed: they are asked again.
        """
        refused = [
            index
            for index, reply in enumerate(replies)
            if reply.status in (400, 403) and requests[index].method == "HEAD"
        ]
        if not refused:
            return
        look = Request("GET", requests[refused[0]].target, byte_range=ByteRange(0, 1))
        [told] = await self._transport.run([look], origin)
        if told.status >= 400:
            for index in refused:
                replies[index].body = told.body
        elif told.ok:
            again = await self._transport.run([requests[index] for index in refused], origin)
            for index, reply in zip(refused, again, strict=True):
                replies[index] = reply

    async def _follow(
        self, requests: Sequence[Request], replies: list[Reply], origin: Origin
    ) -> None:
        moved = [index for index, reply in enumerate(replies) if _is_elsewhere(reply, origin)]
        self._account.move_to(moved_to(replies[moved[0]]))
        there = await self._account.origin()
        self._endpoint = there.base_url
        await self._again(requests, replies, there, moved)


def _is_elsewhere(reply: Reply, origin: Origin) -> bool:
    return moved_to(reply) not in ("", origin.region)
