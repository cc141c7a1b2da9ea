"""What is asked of a server and what came of it: the words between a store and its transport."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from snapd.remote.base import ByteRange, Facts, Sink, SmallSink

Method = Literal["GET", "HEAD", "PUT", "POST", "DELETE"]

_STATUS_LINE = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})(?:[ \r\n]|$)")

REPLY_BODY_BYTES_MAX = 8 * 1024 * 1024
"""A page of a listing is far below; a document names its own limit."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where requests go and as whom; a new object replaces it when the credentials change.

    `base_url` has no slash at its end. Without an `access_key` requests are not signed; a transport
    that signed once signs for ever. With `signs_bodies` the signature covers what is uploaded over
    TLS, too; over plain HTTP it always does. With `sends_digests` uploads say their MD5, which
    buckets with Object Lock insist on.
    """

    base_url: str
    region: str
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_file: str = ""
    signs_bodies: bool = False
    sends_digests: bool = False

    @property
    def leaves_bodies_to_tls(self) -> bool:
        """Tell whether the signature of an upload says nothing of its body."""
        signed = self.signs_bodies or not self.base_url.startswith("https:")
        return bool(self.access_key) and not signed


@dataclass(slots=True, eq=False)
class Request:
    """One HTTP request below an origin.

    `target` is percent-encoded and begins with a slash. The body of a good answer goes to `sink`
    or, without one, into the reply. `small` is the sink's second face, for a whole body at once.
    `body` is called in the transfer thread, once a try.
    """

    method: Method
    target: str
    sink: Sink | None = None
    small: SmallSink | None = None
    byte_range: ByteRange | None = None
    body: Callable[[], bytes] | None = None
    headers: tuple[str, ...] = ()
    limit_bytes: int = REPLY_BODY_BYTES_MAX


@dataclass(slots=True, eq=False)
class Reply:
    """What came of one request: an answer, a failure of libcurl's, or an error of our own side.

    `curl_code` is zero when the whole answer arrived. `size_bytes` counts what the sink was given.
    `error` is what a sink or a source raised. `overlong` says that the body broke its limit.
    `facts` are those of a `Got`. `latency_seconds` went by between the request and the first byte
    of the answer; small objects go without that.
    """

    status: int = 0
    size_bytes: int = 0
    body: bytes = b""
    head: list[bytes] = field(default_factory=list)
    curl_code: int = 0
    curl_message: str = ""
    retry_after_seconds: int = 0
    overlong: bool = False
    error: Exception | None = None
    facts: Facts | None = None
    latency_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Tell whether a whole answer of the 2xx kind arrived and nobody on our side objected."""
        return 200 <= self.status < 300 and not self.curl_code and self.error is None

    def header(self, name: str) -> str:
        """Read a header of the last answer, or an empty text."""
        wanted = name.lower().encode() + b":"
        for line in reversed(self.head):
            if line[: len(wanted)].lower() == wanted:
                return line[len(wanted) :].strip().decode("latin-1")
        return ""


def status_of(head: list[bytes]) -> int:
    """Read the status of the last answer in the raw header lines of an exchange; 0 for none.

    A header or a trailer of the server's own choice may begin as a status line does.
    """
    for line in reversed(head):
        if found := _STATUS_LINE.match(line):
            return int(found[1])
    return 0
