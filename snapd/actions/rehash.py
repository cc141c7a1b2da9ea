"""Read an object of a store again for its hash alone."""

from __future__ import annotations

from blake3 import blake3

from snapd.model.errors import DigestMismatch
from snapd.model.ids import Digest


class RehashSink:
    """A sink that keeps nothing of a body but its hash; `finish` raises `DigestMismatch`.

    `path` is one that holds the object and `store` where it is read, for the message.
    """

    def __init__(self, digest: Digest, path: str, store: str) -> None:
        self.digest = digest
        self._path = path
        self._store = store
        self._hasher = blake3()

    def start(self) -> None:
        """Begin an attempt with no bytes."""
        self._hasher = blake3()

    def write(self, data: bytes | memoryview) -> None:
        """Hash the next piece."""
        self._hasher.update(data)

    def finish(self) -> None:
        """Compare."""
        actual = self._hasher.hexdigest()
        if actual != self.digest:
            raise DigestMismatch(
                f"object {self.digest} of {self._path} in {self._store} hashes to {actual}",
                object=self.digest,
                path=self._path,
                actual=actual,
            )
