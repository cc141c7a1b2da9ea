"""The contract of a store, which every backend and every wrapper keeps.

A store maps keys (`.objects/...`, `.manifests/...`) to bytes. The hot path moves batches: a call
names many small transfers, the backend runs them side by side in threads of its own, and one
answer wakes the event loop. Bytes never pass through the event loop; a `Sink` takes them where
they arrive.

Rules for every implementation, checked by `tests/contract`:

* **Outcome.** A batch call returns one outcome an item, in the order of the items. A failed item is
  an error object in that list, never a raised one; only cancellation raises out of a batch call.
  Single calls (`get`, `put`, `delete`, `list`, `put_large`) raise.
* **Absence** is `KeyMissing` for a key and `StoreMissing` for the bucket or directory itself.
  `head_batch` says None for an absent key, because looking is its purpose.
* **Ranges** lie inside the object; a range that begins at or behind the end is `KeyMissing` with
  `details["size_bytes"]` when the backend knows it. A range that reaches behind the end is cut.
* **Retries.** A backend asks once. It refreshes credentials and asks again once after the store
  says that a token expired; every other repetition belongs to the retrying wrapper. All calls may
  be repeated: puts are whole-object and idempotent.
* **Whole bodies.** A sink's `finish` is called only after every byte that the store announced has
  arrived; a short body is `ConnectionLost`.
* **Stalls.** A transfer without a byte for `stall_timeout_seconds` fails with `Stalled`.
* **Visibility.** A put is visible whole or not at all, also when it fails or is cancelled.
* **Cancellation.** A cancelled call returns promptly and, once it has raised, calls no sink and no
  source of its items any more and leaves no partial upload behind as far as the store lets it.
* **Errors** are of `snapd.model.errors` and say the cause, the URI and the key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

from snapd.model.errors import InternalError, SnapsyncError
from snapd.model.uris import StoreUri

Operation: TypeAlias = Literal[
    "get", "head", "put", "put_large", "get_document", "put_document", "delete", "list"
]
"""What one request is called in metrics, in messages about retries and in planned faults."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `offset` of an object; `length` is positive."""

    offset: int
    length: int


class Sink(Protocol):
    """Where the body of one GET goes.

    The store calls `start` when an attempt begins, then `write` with consecutive pieces, then
    `finish`; all of it blocking, in one worker thread of the store, never two calls at once. A
    second `start` means that an earlier attempt came to nothing: its bytes are forgotten. An error
    raised here ends that item with this error. Giving up (`discard`) is the owner's business, after
    the batch call has returned or raised.
    """

    def start(self) -> None:
        """Begin an attempt with no bytes."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """Take the next piece; `data` is only valid during the call."""
        ...

    def finish(self) -> None:
        """Take note that the whole body arrived; verify and publish it."""
        ...


Packed: TypeAlias = tuple[str | int, ...]
"""What another process needs to make a sink of its own for the same object; plain values."""

Facts: TypeAlias = tuple[int, int, int, int]
"""How `stat` saw a file that was just published: size, inode, mtime_ns, ctime_ns."""


class SmallSink(Protocol):
    """The second face of a sink whose body is small: it takes the whole at once, anywhere.

    A store may call `take` instead of `start`, `write` and `finish`, or have another process do so
    with a sink made from what `packed` tells. A body of more than `limit_bytes` is streamed.
    """

    @property
    def limit_bytes(self) -> int:
        """The longest body that may be held in memory for it."""
        ...

    def packed(self) -> Packed:
        """Describe the sink to another process."""
        ...

    def take(self, pieces: list[bytes]) -> Facts | None:
        """Take the whole body, verify and publish it; raises as `finish` does.

        Returns how the new file looks, or None if there is none.
        """
        ...


class Get(NamedTuple):
    """One object, or one range of one, to be read into a sink. `size_hint_bytes` is only a hint.

    `small` is the same sink's second face, if it has one.
    """

    key: str
    sink: Sink
    byte_range: ByteRange | None = None
    size_hint_bytes: int = 0
    small: SmallSink | None = None


@dataclass(frozen=True, slots=True)
class Got:
    """A GET that arrived whole: how many bytes the sink was given.

    `facts` tell of a file that another process published, about which nobody here knows yet.
    """

    size_bytes: int
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """One small object to be written.

    `load` is called once an attempt, in a worker thread, and returns the whole body; it raises when
    the source is not any more what it was. With `if_absent` an existing key is left as it is.
    """

    key: str
    load: Callable[[], bytes]
    size_bytes: int
    if_absent: bool = True


@dataclass(frozen=True, slots=True)
class Stored:
    """A PUT that is durable in the store, or `existed` because the key was there already."""

    etag: str
    existed: bool = False


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store tells of an object without reading it."""

    key: str
    size_bytes: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A small object read whole, with the tag for a conditional write."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for a document's write: anything, absence, or an unchanged ETag."""

    kind: Literal["always", "if_absent", "if_match"] = "always"
    etag: str = field(default="")


ALWAYS = Condition()
IF_ABSENT = Condition("if_absent")

GetOutcome: TypeAlias = Got | SnapsyncError
PutOutcome: TypeAlias = Stored | SnapsyncError
HeadOutcome: TypeAlias = ObjectInfo | SnapsyncError | None


def item_error(raised: Exception, key: str) -> SnapsyncError:
    """Turn what a sink or a source raised into the outcome of its item.

    Errors of ours stay what they are; anything else is a defect, named with its key.
    """
    if isinstance(raised, SnapsyncError):
        return raised
    error = InternalError(f"{key}: {type(raised).__name__}: {raised}", key=key)
    error.__cause__ = raised
    return error


class RemoteStore(Protocol):
    """A place where snapshots live for everyone. Used inside the `async with` that opened it."""

    @property
    def uri(self) -> StoreUri:
        """The URI that this store was opened with."""
        ...

    def describe(self) -> str:
        """Name the chain of wrappers and the backend: `retrying(metered(s3://bucket/prefix))`."""
        ...

    async def get_batch(self, gets: Sequence[Get]) -> list[GetOutcome]:
        """Read many objects or ranges into their sinks, side by side."""
        ...

    async def head_batch(self, keys: Sequence[str]) -> list[HeadOutcome]:
        """Look at many keys, side by side."""
        ...

    async def put_batch(self, puts: Sequence[Put]) -> list[PutOutcome]:
        """Write many small objects, side by side; each body is in memory while it is sent."""
        ...

    async def put_large(
        self, key: str, parts: AsyncIterable[bytes], *, size_bytes: int, if_absent: bool = True
    ) -> Stored:
        """Write one large object from consecutive parts, in memory bounded by a few parts.

        An error raised by `parts`, and cancellation, abort the upload: nothing is visible. Parts
        that do not add up to `size_bytes` are `SourceChanged`. Parts may be of any size except
        that backends may ask all but the last to be of `large_part_bytes`. With `if_absent` an
        existing key is left as it is, and `parts` need not be read.
        """
        ...

    @property
    def large_part_bytes(self) -> int:
        """The size of every part but the last that `put_large` is given."""
        ...

    async def get(self, key: str, *, limit_bytes: int) -> Document:
        """Read a document whole.

        One of more than `limit_bytes` is `StoreFailing` with `details["limit_bytes"]`, which is
        not worth a repetition.
        """
        ...

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        """Write a document; raises `ConditionFailed` and writes nothing if the condition fails."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a key; removing an absent one is no error."""
        ...

    def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """Walk all keys that start with `prefix`, in byte order, page by page.

        Whoever may leave the walk early closes it (`contextlib.aclosing`).
        """
        ...
