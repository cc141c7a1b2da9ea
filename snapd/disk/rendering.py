"""Write the manifest of a walked tree: the text that `snapd.model.manifest` reads."""

from __future__ import annotations

from array import array
from itertools import repeat
from typing import TYPE_CHECKING

from blake3 import blake3

from snapd.disk.hashing import DIGEST_BYTES

if TYPE_CHECKING:
    from snapd.disk.hashing import Columns
    from snapd.disk.listing import Listing

_HEX = 2 * DIGEST_BYTES


def render(listing: Listing, columns: Columns) -> bytes:
    """Write the text; files have their digests in `columns`, directories get theirs here."""
    checksums, sizes = _sum_up(listing, columns)
    numbers, depths = listing.numbers, listing.depths
    prefix, lengths, current = b"./", [2], 0
    parts = [b"D %o %b %d ./\n" % (listing.modes[0], bytes(checksums[:_HEX]), sizes[0])]
    for directory, first, end, file in listing.runs():
        if directory != current:
            current, depth = directory, depths[directory]
            prefix = prefix[: lengths[max(depth - 1, 0)]]
            if depth:
                prefix += listing.name(listing.own_entries[directory])
            lengths[depth:] = [len(prefix)]
        if end:
            parts.append(_lines(listing, columns, first, end, file, prefix))
        else:
            below = numbers[first]
            parts.append(
                b"D %o %b %d %b%b\n"
                % (
                    listing.modes[below],
                    bytes(checksums[_HEX * below : _HEX * (below + 1)]),
                    sizes[below],
                    prefix,
                    listing.name(first),
                )
            )
    return b"".join(parts)


def _lines(
    listing: Listing, columns: Columns, first: int, end: int, file: int, prefix: bytes
) -> bytes:
    """Write the lines of some files of one directory that follow each other."""
    stop = file + end - first
    fields = zip(
        columns.column(0, file, stop).tolist(),
        _hex_digests(columns, file, stop),
        columns.column(1, file, stop).tolist(),
        repeat(prefix),
        listing.names_between(first, end),
        strict=False,
    )
    return b"".join([b"F %o %b %d %b%b\n" % row for row in fields])


def _hex_digests(columns: Columns, first: int, end: int) -> list[bytes]:
    text = columns.digests[DIGEST_BYTES * first : DIGEST_BYTES * end].hex().encode()
    return [text[start : start + _HEX] for start in range(0, len(text), _HEX)]


def _sum_up(listing: Listing, columns: Columns) -> tuple[bytearray, array[int]]:
    """Give checksum and size of every directory, children before parents."""
    count = len(listing.modes)
    checksums, sizes = bytearray(_HEX * count), array("Q", bytes(8 * count))
    for directory in range(count - 1, -1, -1):
        first, end = listing.file_firsts[directory], listing.end_of_files(directory)
        children = set(_hex_digests(columns, first, end))
        size_bytes = sum(columns.column(1, first, end).tolist())
        for below in listing.directories_of(directory):
            children.add(bytes(checksums[_HEX * below : _HEX * (below + 1)]))
            size_bytes += sizes[below]
        # The same as `manifest.directory_checksum`, which takes text.
        checksum = blake3(b"".join(sorted(children))).hexdigest().encode()
        checksums[_HEX * directory : _HEX * (directory + 1)] = checksum
        sizes[directory] = size_bytes
    return checksums, sizes
