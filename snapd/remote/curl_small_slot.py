"""One libcurl easy handle for small objects: the body is held and handed over whole.

Half of what a small object costs is callbacks, so there is no Python frame for a header or a piece.
What it can't tell without headers is asked again by a `Slot`, which is rare.
"""

from __future__ import annotations

import pycurl

from snapd.model.settings import TransferSettings
from snapd.remote.curl_slot import ERROR_BODY_BYTES_MAX, Slot
from snapd.remote.exchanges import Origin, Reply, Request
from snapd.remote.signing import Signer, Signers

_TOLD_IN_HEADERS = frozenset({301, 307, 400})
"""Answers of which only the headers say in which region the bucket is."""


class SmallSlot(Slot):
    """A handle for GETs whose requests have a `small` sink and no range."""

    __slots__ = ("_limit_bytes", "_pieces_seen", "_seen_at", "_signer", "_signers")

    def __init__(self, settings: TransferSettings, signers: Signers) -> None:
        self._signers = signers
        self._signer: Signer | None = None
        self._pieces: list[bytes] = []
        self._limit_bytes = 0
        super().__init__("GET", settings)

    def _call_back(self) -> None:
        # A list's own append takes pieces without a Python frame for each.
        self.handle.setopt(pycurl.WRITEFUNCTION, self._pieces.append)

    def begin(self, request: Request, origin: Origin) -> Exception | None:
        """Prepare the handle for a request; a defect of ours is returned instead."""
        assert request.small is not None
        self._request = request
        self._pieces.clear()
        self._pieces_seen = 0
        self._seen_at = 0.0
        self.cancelled = False
        try:
            if request.small.limit_bytes != self._limit_bytes:
                self._limit_bytes = request.small.limit_bytes
                self.handle.setopt(pycurl.MAXFILESIZE_LARGE, self._limit_bytes)
            self._address(request, origin)
        except Exception as exc:  # noqa: BLE001  # it is this item's outcome, and only its
            return exc
        return None

    def _address(self, request: Request, origin: Origin) -> None:
        if origin is not self._origin:
            self._signer = self._signers.of(origin)
        if self._signer is None:
            super()._address(request, origin)
            return
        handle = self.handle
        if origin is not self._origin and origin.ca_file:
            handle.setopt(pycurl.CAINFO, origin.ca_file)
        self._origin = origin
        handle.setopt(pycurl.URL, origin.base_url + request.target)
        handle.setopt(pycurl.HTTPHEADER, self._signer.headers(request.target))

    def silent_seconds(self, now: float) -> float:
        """Tell for how long a body that has begun has not gone on, as seen at each look."""
        if len(self._pieces) != self._pieces_seen:
            self._pieces_seen = len(self._pieces)
            self._seen_at = now
        return now - self._seen_at if self._seen_at else 0.0

    def end(self, curl_code: int, curl_message: str) -> Reply | None:
        """Hand the body over, and say what came of the request; None: a `Slot` shall ask again."""
        status = int(self.handle.getinfo(pycurl.RESPONSE_CODE))
        if curl_code == pycurl.E_FILESIZE_EXCEEDED or status in _TOLD_IN_HEADERS:
            self.release()
            return None
        reply = Reply(status=status, curl_code=curl_code, curl_message=curl_message)
        if not reply.ok:
            reply.body = b"".join(self._pieces)[:ERROR_BODY_BYTES_MAX]
            reply.retry_after_seconds = self._retry_after_seconds(status)
        elif not self.cancelled:
            small = self._request.small
            assert small is not None
            reply.size_bytes = sum(map(len, self._pieces))
            try:
                reply.facts = small.take(self._pieces)
            except Exception as exc:  # noqa: BLE001  # whatever a sink raises is its item's outcome
                reply.error = exc
        self.release()
        return reply

    def release(self) -> None:
        """Let go of the request, its sink and its body."""
        del self._request
        self._pieces.clear()
