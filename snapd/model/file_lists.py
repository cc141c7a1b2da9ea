"""Lists of files with their SHA-256 and size, as data teams keep them beside the data.

`read_file_list` understands what people write: our own `snapsync.files/1`, a JSON list of
`{path, sha256, size}`, a JSON object of path to hash or to `{sha256, size}`, either of them below
`files`, `entries` or `resources`, and the lines of `sha256sum`, GNU's and BSD's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from snapd.model.errors import ManifestRefused, SourceUnfit
from snapd.model.ids import SnapshotId
from snapd.model.json_stream import JsonStream

SCHEMA = "snapsync.files/1"
LINE_MAX_CHARACTERS = 64 * 1024
FILES_MAX = 8_000_000
"""A longer list is refused: no snapshot has so many files, for its manifest would be too long."""
_CONTAINERS = ("files", "entries", "resources")
_ABOUT = ("schema", "snapshot_id")
_PATH_KEYS = ("path", "file", "filename", "name")
_SIZE_KEYS = ("size", "size_bytes", "bytes")
_HASH_BYTES, _SIZE_BYTES = 32, 8
_HASH = re.compile(r"(?:sha-?256:)?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)
_GNU_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)", re.ASCII | re.IGNORECASE | re.DOTALL)
_BSD_LINE = re.compile(r"SHA-?256 \((.+)\) = ([0-9a-f]{64})", re.ASCII | re.IGNORECASE | re.DOTALL)
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class FileRow(NamedTuple):
    """A file as it is: `path` begins with no `./`; `sha256` is empty if nobody hashed it so."""

    path: str
    size_bytes: int
    sha256: bytes
    blake3: bytes

    def to_json(self) -> dict[str, Any]:
        """Render for a list."""
        row: dict[str, Any] = {"path": self.path, "size": self.size_bytes}
        if self.sha256:
            row["sha256"] = self.sha256.hex()
        return {**row, "blake3": self.blake3.hex()}


class Listed(NamedTuple):
    """A file as a list has it; what the list does not say is None."""

    path: str
    size_bytes: int | None
    sha256: bytes | None
    blake3: bytes | None


class Difference(NamedTuple):
    """One path where a list and the files are not the same, and in what."""

    kind: Literal["missing", "extra", "changed"]
    path: str
    what: str = ""

    def to_json(self) -> dict[str, str]:
        """Render for `--json`."""
        document = {"kind": self.kind, "path": self.path}
        return {**document, "what": self.what} if self.what else document


def render_file_list(
    snapshot_id: SnapshotId, file_count: int, rows: Iterable[FileRow]
) -> Iterator[bytes]:
    """Write a list line by line, a file a line, in the order of the bytes of their paths.

    Raises `SourceUnfit` for a path that `read_file_list` would refuse.
    """
    yield (
        f'{{\n"schema": "{SCHEMA}",\n"snapshot_id": "{snapshot_id}",\n'
        f'"file_count": {file_count},\n"files": ['
    ).encode()
    separator = "\n"
    for row in rows:
        if why := path_fault(row.path):
            raise SourceUnfit(f"a list of files can't carry {_shown(row.path)}: {why}")
        yield f"{separator}{json.dumps(row.to_json(), ensure_ascii=False)}".encode()
        separator = ",\n"
    yield b"\n]\n}\n"


class FileList:
    """What a list says: about 50 bytes a file beside its path, sorted by the bytes of the paths."""

    def __init__(self, rows: list[bytes], snapshot_id: str | None) -> None:
        self._rows = rows
        self.snapshot_id = snapshot_id
        """The snapshot of which the list was made, if it says so."""

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Listed]:
        return map(_unpack, self._rows)

    @property
    def has_sha256(self) -> bool:
        """Tell whether any file is listed with a SHA-256, so that one is needed to compare."""
        return any(row[row.index(b"\0") + 1] & _SHA256 for row in self._rows)

    def compare(self, found: Iterable[FileRow]) -> Iterator[Difference]:
        """Compare with the files that are there, which come in the order of their paths' bytes."""
        listed, rows = iter(self), iter(found)
        said, row = next(listed, None), next(rows, None)
        while said is not None or row is not None:
            # Code point order, which `<` of str is, and the order of UTF-8 bytes are the same.
            if row is None or (said is not None and said.path < row.path):
                assert said is not None
                yield Difference("missing", said.path)
                said = next(listed, None)
            elif said is None or row.path < said.path:
                yield Difference("extra", row.path)
                row = next(rows, None)
            else:
                if what := _changed(said, row):
                    yield Difference("changed", row.path, what)
                said, row = next(listed, None), next(rows, None)


def _changed(said: Listed, row: FileRow) -> str:
    if said.size_bytes not in (None, row.size_bytes):
        return f"{row.size_bytes} bytes, not {said.size_bytes}"
    for name, wanted, actual in (
        ("sha256", said.sha256, row.sha256),
        ("blake3", said.blake3, row.blake3),
    ):
        if wanted not in (None, actual):
            assert wanted is not None
            return f"{name} {actual.hex()}, not {wanted.hex()}"
    return ""


def read_file_list(read: Callable[[int], str]) -> FileList:
    """Read a list; `read(n)` gives its next at most `n` characters.

    Raises `ManifestRefused` naming the entry: for a shape that is not known, a hash that is none,
    a path that is hostile or is listed twice, and an empty list.
    """
    head = read(LINE_MAX_CHARACTERS).removeprefix("\ufeff")
    again = _Rewound(head, read)
    try:
        if head.lstrip().startswith(("{", "[")):
            rows, snapshot_id = _read_json(JsonStream(again.read))
        else:
            rows, snapshot_id = _packed(_read_lines(again.read)), None
    except ManifestRefused as error:
        raise ManifestRefused(error.message, hint=LIST_HINT, **error.details) from error
    rows.sort()
    for one, other in pairwise(rows):
        if (path := _path_in(one)) == _path_in(other):
            raise _refusal(path.decode(), "it is listed twice")
    if not rows:
        raise ManifestRefused("it lists no file", hint=LIST_HINT)
    return FileList(rows, snapshot_id)


LIST_HINT = "A list is JSON with path, sha256 and size of each file, or the lines of sha256sum."


class _Rewound:
    def __init__(self, head: str, read: Callable[[int], str]) -> None:
        self._head = head
        self._read = read

    def read(self, size: int) -> str:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._read(size)


def _read_json(stream: JsonStream) -> tuple[list[bytes], str | None]:
    rows: list[bytes] = []
    about: dict[str, str] = {}
    unfit: ManifestRefused | None = None
    contained = False
    for key, value in stream.members(_CONTAINERS):
        if key in _ABOUT and isinstance(value, str):
            about[key] = value
        if isinstance(value, Iterator):
            if contained:
                raise ManifestRefused("it has two lists of files")
            # What came before is not about files but about the list.
            contained, unfit = True, None
            rows = _packed(_entry(name, each) for name, each in value)
        elif not contained:
            try:
                rows += _packed([_entry(key, value)], len(rows))
            except ManifestRefused as error:
                if key is None:
                    raise
                unfit = unfit or error
    stream.end()
    if unfit is not None:
        raise unfit
    if not contained:
        return rows, None
    _check_schema(about.get("schema", ""))
    return rows, about.get("snapshot_id")


def _check_schema(found: str) -> None:
    ours, _, number = SCHEMA.partition("/")
    kind, _, theirs = found.partition("/")
    if kind == ours and theirs != number:
        raise ManifestRefused(f"it is a {_shown(found)}, and this program knows {SCHEMA!r}")


def _entry(key: str | None, value: object) -> Listed:
    """Take one member of a list or of an object."""
    if isinstance(value, str) and key is not None:
        return _listed(key, None, value, None)
    if not isinstance(value, Mapping):
        where = "an entry" if key is None else _shown(key)
        raise ManifestRefused(f"{where} is neither a hash nor an object with one")
    path = key
    if path is None:
        path = next((value[name] for name in _PATH_KEYS if name in value), None)
        if not isinstance(path, str):
            raise ManifestRefused(f"an entry has no path: {_shown(json.dumps(value))}")
    size = next((value[name] for name in _SIZE_KEYS if name in value), None)
    if size is not None and (type(size) is not int or not 0 <= size < 2 ** (8 * _SIZE_BYTES)):
        raise _refusal(path, f"its size is {_shown(size)}")
    return _listed(path, size, value.get("sha256", value.get("hash")), value.get("blake3"))


def _listed(path: str, size: int | None, sha256: object, blake3: object) -> Listed:
    plain = path.removeprefix("./")
    if why := path_fault(plain):
        raise _refusal(path, why)
    if sha256 is None and blake3 is None:
        raise _refusal(path, "it has no sha256")
    return Listed(plain, size, _hash(path, sha256), _hash(path, blake3))


def _hash(path: str, text: object) -> bytes | None:
    if text is None:
        return None
    found = _HASH.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise _refusal(path, f"its hash is {_shown(text)}, not 64 hexadecimal digits")
    return bytes.fromhex(found[1])


def path_fault(path: str) -> str:
    """Tell why a path may not be in a list; empty if it may."""
    if path.startswith("/"):
        return "it is absolute"
    if _CONTROL.search(path):
        return "it holds a control character"
    if _SURROGATE.search(path):
        return "it is not UTF-8"
    parts = path.split("/")
    if ".." in parts or "." in parts:
        return "it has a component . or .."
    if "" in parts:
        return "it has an empty component"
    return ""


def _read_lines(read: Callable[[int], str]) -> Iterator[Listed]:
    for line in _lines(read):
        if not line.strip() or line.startswith("#"):
            continue
        if found := _GNU_LINE.fullmatch(line):
            path = found[3]
            if found[1]:
                path = re.sub(r"\\[\\nr]", lambda escape: _ESCAPES[escape[0]], path)
            yield _listed(path, None, found[2], None)
        elif found := _BSD_LINE.fullmatch(line):
            yield _listed(found[1], None, found[2], None)
        else:
            raise ManifestRefused(f"no line of sha256sum: {_shown(line)}")


def _lines(read: Callable[[int], str]) -> Iterator[str]:
    rest = ""
    while piece := read(LINE_MAX_CHARACTERS):
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            yield line.removesuffix("\r")
        if len(rest) > LINE_MAX_CHARACTERS:
            raise ManifestRefused(f"a line has more than {LINE_MAX_CHARACTERS} characters")
    yield rest.removesuffix("\r")


_HAS_SIZE, _SHA256, _BLAKE3 = 1, 2, 4


def _packed(entries: Iterable[Listed], before: int = 0) -> list[bytes]:
    """Pack entries; raises `ManifestRefused` if there are too many, with those that were before."""
    rows: list[bytes] = []
    for each in entries:
        rows.append(_pack(each))
        if before + len(rows) > FILES_MAX:
            raise ManifestRefused(f"it lists more than {FILES_MAX} files")
    return rows


def _pack(listed: Listed) -> bytes:
    """Make one object of an entry, which sorts by its path: no path holds a NUL."""
    path, size, sha256, blake3 = listed
    flags = _HAS_SIZE * (size is not None) | _SHA256 * bool(sha256) | _BLAKE3 * bool(blake3)
    head = size.to_bytes(_SIZE_BYTES, "big") if size is not None else b""
    return b"%b\0%c%b%b%b" % (path.encode(), flags, head, sha256 or b"", blake3 or b"")


def _path_in(row: bytes) -> bytes:
    return row[: row.index(b"\0")]


def _unpack(row: bytes) -> Listed:
    path, _, rest = row.partition(b"\0")
    flags, at = rest[0], 1
    size, sha256, blake3 = None, None, None
    if flags & _HAS_SIZE:
        size, at = int.from_bytes(rest[at : at + _SIZE_BYTES], "big"), at + _SIZE_BYTES
    if flags & _SHA256:
        sha256, at = rest[at : at + _HASH_BYTES], at + _HASH_BYTES
    if flags & _BLAKE3:
        blake3 = rest[at : at + _HASH_BYTES]
    return Listed(path.decode(), size, sha256, blake3)


def _refusal(path: str, why: str) -> ManifestRefused:
    return ManifestRefused(f"{_shown(path)}: {why}", hint=LIST_HINT, path=path[:_SHOWN_CHARACTERS])


_SHOWN_CHARACTERS = 200


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
