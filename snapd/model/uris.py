"""Store URIs: which scheme, which place (format section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from snapd.model.errors import InvalidStoreUri

Scheme = Literal["file", "s3", "gs", "memory"]
SCHEMES: tuple[Scheme, ...] = ("file", "s3", "gs", "memory")


@dataclass(frozen=True, slots=True)
class StoreUri:
    """Where a store is.

    `file`: `path` is absolute and `bucket` empty. `s3` and `gs`: `bucket` and a `path` (the key
    prefix) without leading or trailing slash, possibly empty. `memory`: `bucket` is its name.
    """

    scheme: Scheme
    bucket: str
    path: str

    def __str__(self) -> str:
        if self.scheme == "file":
            return f"file://{self.path}"
        return (
            f"{self.scheme}://{self.bucket}/{self.path}"
            if self.path
            else f"{self.scheme}://{self.bucket}"
        )

    def covers(self, other: StoreUri) -> bool:
        """Tell whether `other` is this store or lies below it, by whole path segments."""
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            return False
        mine, theirs = self.path.rstrip("/"), other.path.rstrip("/")
        return not mine or theirs == mine or theirs.startswith(f"{mine}/")


def parse_store_uri(text: str) -> StoreUri:
    """Read a store URI as the reference does, without its `localhost` defect.

    There is no percent-decoding and no query. Raises `InvalidStoreUri` naming the text for an
    unknown scheme, a missing bucket, or a file path with `..` in it.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES if name != "memory")
        raise InvalidStoreUri(f"not a store: {text!r} (known schemes: {known})")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise InvalidStoreUri(f"a store URI holds no control characters: {text!r}")
    if scheme == "file":
        return StoreUri("file", "", _file_path(text, rest))
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise InvalidStoreUri(f"the store names no bucket: {text!r}")
    return StoreUri(cast(Scheme, scheme), bucket, prefix.strip("/"))


def _file_path(text: str, rest: str) -> str:
    if rest == "localhost" or rest.startswith("localhost/"):
        rest = rest.removeprefix("localhost")
    path = "/" + rest.strip("/")
    if ".." in path.split("/"):
        raise InvalidStoreUri(f"a store path holds no '..': {text!r}")
    return path
