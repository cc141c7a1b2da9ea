"""Read the objects of a snapshot for a second hash, SHA-256, beside the one that names them."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

from anyio import to_thread

from snapd.actions.rehash import RehashSink
from snapd.actions.verify import OnProgress, check_and_list, verify_objects
from snapd.disk.hashing import DIGEST_BYTES, new_sha256
from snapd.disk.walk import WalkedTree, WalkOptions, WalkProgress, walk
from snapd.model.errors import TreeDiffers
from snapd.model.file_lists import FileRow
from snapd.model.ids import Digest
from snapd.model.manifest import Manifest
from snapd.model.settings import TransferSettings
from snapd.remote.base import RemoteStore

_SIZE_BYTES = 8
_SUM_BYTES = DIGEST_BYTES + _SIZE_BYTES


@dataclass(frozen=True, slots=True)
class HashedFiles:
    """The files of a snapshot with both hashes; `rows` goes through them in the order of paths."""

    manifest: Manifest
    rows: Callable[[], Iterator[FileRow]]
    inodes: array[int] | None = None
    """Those of the files of a directory, in the same order."""


class SecondHashes:
    """SHA-256 and size of each distinct object of a manifest: 72 bytes each."""

    def __init__(self, manifest: Manifest) -> None:
        wanted = check_and_list(manifest)
        digests = sorted(bytes.fromhex(manifest[index].checksum) for index in wanted)
        self._digests = b"".join(digests)
        self._sums = bytearray(_SUM_BYTES * len(digests))

    def put(self, digest: Digest, size_bytes: int, sha256: bytes) -> None:
        """Write down what an object hashes to; from any thread."""
        start = _SUM_BYTES * self._place(bytes.fromhex(digest))
        self._sums[start : start + _SUM_BYTES] = sha256 + size_bytes.to_bytes(_SIZE_BYTES, "big")

    def rows(self, manifest: Manifest) -> Iterator[FileRow]:
        """Give each file of the manifest, once all objects were put."""
        for kind, _, checksum, _, path in manifest:
            if kind == "F":
                blake3 = bytes.fromhex(checksum)
                start = _SUM_BYTES * self._place(blake3)
                end = start + DIGEST_BYTES
                size = int.from_bytes(self._sums[end : start + _SUM_BYTES], "big")
                yield FileRow(path[2:], size, bytes(self._sums[start:end]), blake3)

    def _place(self, digest: bytes) -> int:
        digests = self._digests
        return bisect_left(
            range(len(digests) // DIGEST_BYTES),
            digest,
            key=lambda place: digests[DIGEST_BYTES * place : DIGEST_BYTES * (place + 1)],
        )


class TwinSink(RehashSink):
    """A sink that takes both hashes of a body; only one that is right is written down."""

    def __init__(self, digest: Digest, path: str, store: str, into: SecondHashes) -> None:
        super().__init__(digest, path, store)
        self._into = into
        self._size_bytes = 0
        self._sha256 = new_sha256()

    def start(self) -> None:
        """Begin an attempt with no bytes."""
        super().start()
        self._size_bytes = 0
        self._sha256 = new_sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Hash the next piece both ways."""
        super().write(data)
        self._sha256.update(memoryview(data))
        self._size_bytes += len(data)

    def finish(self) -> None:
        """Compare, and write down the second hash."""
        super().finish()
        self._into.put(self.digest, self._size_bytes, self._sha256.digest())


async def hash_stored(
    store: RemoteStore, manifest: Manifest, settings: TransferSettings, on_progress: OnProgress
) -> HashedFiles:
    """Read every distinct object of a snapshot in a store once, for both hashes.

    Raises what `verify_snapshot` raises: a wrong object gets no second hash.
    """
    hashes = await to_thread.run_sync(SecondHashes, manifest)

    def new_sink(digest: Digest, path: str, where: str) -> RehashSink:
        return TwinSink(digest, path, where, hashes)

    await verify_objects(store, manifest, settings, on_progress, new_sink)
    return HashedFiles(manifest, partial(hashes.rows, manifest))


def hash_directory(
    directory: Path, options: WalkOptions, on_progress: Callable[[WalkProgress], None]
) -> HashedFiles:
    """Read a directory once, for both hashes if the options say so; blocking.

    Raises what `walk` raises.
    """
    walked = walk(directory, options, on_progress)
    return HashedFiles(walked.manifest, partial(_walked_rows, walked), walked.facts.inodes)


def hash_tree(
    tree: Path, manifest: Manifest, on_progress: Callable[[WalkProgress], None]
) -> HashedFiles:
    """Read a complete tree of a cache once, for both hashes; blocking.

    Raises `TreeDiffers` naming the first file that is not the manifest's.
    """
    walked = walk(tree, WalkOptions(follow=False, sha256=True), on_progress)
    for stated, actual in zip_longest(_files(manifest), _files(walked.manifest)):
        if stated != actual:
            path = min(each[1] for each in (stated, actual) if each is not None)
            raise TreeDiffers(
                f"the tree in the cache is not {manifest.id}: the first file that differs is"
                f" {path}",
                hint="`snapctl verify --deep ID` puts it right.",
                id=manifest.id,
                tree=str(tree),
                path=path,
            )
    return HashedFiles(manifest, partial(_walked_rows, walked))


def _files(manifest: Manifest) -> Iterator[tuple[Digest, str]]:
    for kind, _, checksum, _, path in manifest:
        if kind == "F":
            yield checksum, path


def _walked_rows(walked: WalkedTree) -> Iterator[FileRow]:
    sizes, sha256 = walked.facts.sizes, walked.sha256
    for number, (checksum, path) in enumerate(_files(walked.manifest)):
        start = DIGEST_BYTES * number
        yield FileRow(
            path[2:], sizes[number], sha256[start : start + DIGEST_BYTES], bytes.fromhex(checksum)
        )
