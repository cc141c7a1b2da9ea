"""What the node and a transfer process say to each other: frames of plain values.

A frame is its length in four bytes and a tuple by `marshal`, which is the fastest way there is
between two processes of the same interpreter; both ends are ours.
"""

from __future__ import annotations

import marshal
import socket
import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

from snapd.model.errors import error_from_json
from snapd.remote.base import item_error
from snapd.remote.exchanges import Origin, Reply

Message: TypeAlias = tuple[Any, ...]

_LENGTH = struct.Struct("<I")
_RECEIVE_BYTES = 256 * 1024


def frame(message: Message) -> bytes:
    """Put a message into its frame."""
    text = marshal.dumps(message)
    return _LENGTH.pack(len(text)) + text


class Frames:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take the next bytes and give the messages that are whole now."""
        pending = self._pending
        pending += data
        start = 0
        while len(pending) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(pending, start)
            end = start + _LENGTH.size + length
            if len(pending) < end:
                break
            message: Message = marshal.loads(pending[start + _LENGTH.size : end])
            start = end
            yield message
        del pending[:start]


def receive(connection: socket.socket) -> Iterator[Message]:
    """Give message after message until the other end hangs up; blocking."""
    frames = Frames()
    while data := connection.recv(_RECEIVE_BYTES):
        yield from frames.feed(data)


def values_of(origin: Origin) -> tuple[str, ...]:
    """Take an origin apart; `origin_of` makes the same again, for all but uploads."""
    return (
        origin.base_url,
        origin.region,
        origin.access_key,
        origin.secret_key,
        origin.token,
        origin.ca_file,
    )


def origin_of(values: tuple[str, ...]) -> Origin:
    """Put an origin together from what `values_of` took apart."""
    base_url, region, access_key, secret_key, token, ca_file = values
    return Origin(base_url, region, access_key, secret_key, token, ca_file)


def answer_of(reply: Reply, target: str) -> Message:
    """Put a reply into plain values: a good one, which there are many of, into two."""
    if reply.ok:
        return reply.size_bytes, reply.facts
    error = None if reply.error is None else item_error(reply.error, target).to_json()
    return (
        reply.status,
        reply.body,
        reply.head,
        reply.curl_code,
        reply.curl_message,
        reply.retry_after_seconds,
        error,
    )


def reply_of(answer: Message) -> Reply:
    """Make the reply again that `answer_of` took apart."""
    if len(answer) == 2:
        size_bytes, facts = answer
        return Reply(200, size_bytes, facts=facts)
    status, body, head, curl_code, curl_message, retry_after_seconds, error = answer
    return Reply(
        status=status,
        body=body,
        head=head,
        curl_code=curl_code,
        curl_message=curl_message,
        retry_after_seconds=retry_after_seconds,
        error=None if error is None else error_from_json(error),
    )
