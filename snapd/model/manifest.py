"""The text that lists a snapshot: read strictly, written canonically, no object held a line.

`docs/format.md` is the grammar in words. The text is kept as it is, beside one array of line
offsets; an `Entry` is made when somebody asks for it.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from blake3 import blake3

from snapd.model.errors import DigestMismatch, ManifestRefused, TreeDiffers
from snapd.model.ids import Digest, SnapshotId, digest_of

if TYPE_CHECKING:
    from snapd.model.objects import Objects

ROOT = "./"
SIZE_MAX_BYTES = 2**64 - 1
COMPONENT_MAX_BYTES = 255

_BLOCK_BYTES = 1024 * 1024  # text handled at a time, so that what parsing needs stays small

HEAD_MAX_BYTES = 80  # enough for kind, mode, checksum and what follows them

_COMPONENT = rb"(?!\.{1,2}[/\n])[^/\n\x00]{1,255}+"
_LINE = re.compile(
    rb"^(?:(F)|D) (?:0|[1-7][0-7]{0,3}) [0-9a-f]{64} (0|[1-9][0-9]{0,19}) "
    rb"(\./(?(1)%b(?:/%b)*+(?<!\r)|(?:%b/)*+))\n" % (_COMPONENT, _COMPONENT, _COMPONENT),
    re.MULTILINE,
)
_UNCOUNTED = re.compile(rb"^(?:(?:#[^\n]*+)?\n)++", re.MULTILINE)


class Entry(NamedTuple):
    """One line. `path` is as in the text: it starts with `./`, a directory's ends with `/`."""

    kind: Literal["F", "D"]
    mode: int
    checksum: Digest
    size_bytes: int
    path: str


class Manifest:
    """A valid manifest: its canonical text, one final LF included, and where each line starts.

    Immutable. A file's `size_bytes` is what the text says, which is a hint and no promise: for a
    file that was reached through a symlink it is the length of the link. Directory checksums are
    as stated until `check_directories` was called. Two manifests are equal if their IDs are.
    """

    __slots__ = (
        "_objects",
        "_starts",
        "directory_count",
        "file_count",
        "id",
        "text",
        "total_bytes",
    )

    id: SnapshotId
    text: bytes
    file_count: int
    directory_count: int
    total_bytes: int
    """Sum of the sizes of all `F` lines; an object that occurs twice counts twice."""

    def __init__(self, text: bytes, snapshot_id: SnapshotId, columns: _Columns) -> None:
        """Take what `parse` validated; everybody else calls `parse` or `from_entries`."""
        self.id = snapshot_id
        self.text = text
        self._starts = columns.starts
        self._objects: Objects | None = None
        self.file_count = columns.file_count
        self.directory_count = len(columns.starts) - 1 - columns.file_count
        self.total_bytes = columns.total_bytes

    @classmethod
    def parse(cls, raw: bytes, *, expected_id: SnapshotId | None = None) -> Manifest:
        """Read a manifest, or refuse it whole.

        Lines that are empty or start with `#`, and a missing final LF, are no part of what the ID
        covers: they are tolerated and do not appear in `text`. Everything else is strict. Raises
        `DigestMismatch` if the ID is another than `expected_id`, and `ManifestRefused` naming the
        first offending line (counted in `raw`), its path and the rule.
        """
        text, snapshot_id = raw, SnapshotId(digest_of(raw))
        if snapshot_id != expected_id and not _is_canonical(raw):
            text = _canonical(raw)
            snapshot_id = SnapshotId(digest_of(text))
        if expected_id is not None and snapshot_id != expected_id:
            raise DigestMismatch(
                f"the manifest of {expected_id} hashes to {snapshot_id}",
                expected=expected_id,
                actual=snapshot_id,
            )
        try:
            columns = _validate(text)
        except _BrokenError as broken:
            raise _refusal(raw, text, snapshot_id, broken) from None
        return cls(text, snapshot_id, columns)

    @classmethod
    def from_entries(cls, entries: Iterable[Entry]) -> Manifest:
        """Render entries, in any order, by the same rules that `parse` applies.

        Raises `ManifestRefused` naming the path of an entry that the format can't carry.
        """
        # NUL sorts before whatever else may follow a name, so this is the order of the names.
        lines = sorted(map(_path_first, entries))
        text = BytesIO()
        for line in lines:
            path, _, head = line.rpartition(b"\0")
            text.write(b"%b %b\n" % (head, path))
        del lines
        return cls.parse(text.getvalue())

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Entry:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return _entry(self.text[self._starts[index] : self._starts[index + 1] - 1])

    def __iter__(self) -> Iterator[Entry]:
        return map(_entry, self.lines())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Manifest {self.id}: {self.file_count} files, {self.total_bytes} bytes>"

    def find(self, path: str) -> Entry | None:
        """Look up one path, spelt as in the text; None if the snapshot has no such entry."""
        wanted = path.encode("utf-8", "surrogateescape")
        index = bisect_left(range(len(self)), wanted, key=self._path_at)
        return self[index] if index < len(self) and self._path_at(index) == wanted else None

    def objects(self) -> Objects:
        """Give the distinct pairs of checksum and mode; found once, and kept."""
        if self._objects is None:
            from snapd.model.objects import collect

            self._objects = collect(_blocks(self.text), self._head_at)
        return self._objects

    def distinct_objects(self) -> array[int]:
        """Tell the index of the first `F` line of each distinct pair of checksum and mode."""
        return self.objects().firsts

    def blob_names(self, indexes: Iterable[int]) -> Iterator[bytes]:
        """Give `<checksum>.<mode>` of the `F` lines at `indexes`, without making entries."""
        for index in indexes:
            checksum, mode = self._head_at(index)
            yield checksum + b"." + mode

    def lines(self) -> Iterator[bytes]:
        """Go through the text line by line; every line ends before its LF."""
        for block in _blocks(self.text):
            yield from block[:-1].split(b"\n")

    def lines_between(self, first: int, end: int) -> list[bytes]:
        """Give the lines from the one with index `first` up to, but not with, the one at `end`."""
        starts = self._starts
        return self.text[starts[first] : starts[end] - 1].split(b"\n") if first < end else []

    def lines_at(self, indexes: Iterable[int]) -> Iterator[bytes]:
        """Go through some lines of the text."""
        text, starts = self.text, self._starts
        for index in indexes:
            yield text[starts[index] : starts[index + 1] - 1]

    def check_directories(self) -> None:
        """Compute the checksum and the size of each directory anew from the lines below it.

        Raises `TreeDiffers` naming the first directory, children before parents, whose line says
        something else.
        """
        open_directories: list[_OpenDirectory] = []
        for entry in self:
            while open_directories and not entry.path.startswith(open_directories[-1].stated.path):
                open_directories.pop().check()
            if open_directories:
                open_directories[-1].add(entry)
            if entry.kind == "D":
                open_directories.append(_OpenDirectory(entry))
        while open_directories:
            open_directories.pop().check()

    def _path_at(self, index: int) -> bytes:
        return self.text[self._starts[index] : self._starts[index + 1] - 1].split(b" ", 4)[4]

    def _head_at(self, index: int) -> tuple[bytes, bytes]:
        start = self._starts[index]
        _, mode, checksum, _ = self.text[start : start + HEAD_MAX_BYTES].split(b" ", 3)
        return checksum, mode


def directory_checksum(child_checksums: Iterable[str]) -> Digest:
    """Hash the distinct checksums of a directory's direct children; order does not matter."""
    return Digest(blake3("".join(sorted(set(child_checksums))).encode()).hexdigest())


class _OpenDirectory:
    """What the lines so far say about one directory."""

    __slots__ = ("checksums", "size_bytes", "stated")

    def __init__(self, stated: Entry) -> None:
        self.stated = stated
        self.checksums: set[Digest] = set()
        self.size_bytes = 0

    def add(self, child: Entry) -> None:
        self.checksums.add(child.checksum)
        self.size_bytes += child.size_bytes

    def check(self) -> None:
        path, checksum = self.stated.path, directory_checksum(self.checksums)
        if self.stated.checksum != checksum:
            raise TreeDiffers(
                f"the manifest states a wrong checksum for the directory {_shown(path)}",
                path=path,
                expected=checksum,
                actual=self.stated.checksum,
            )
        if self.stated.size_bytes != self.size_bytes:
            raise TreeDiffers(
                f"the manifest states a wrong size for the directory {_shown(path)}",
                path=path,
                expected=self.size_bytes,
                actual=self.stated.size_bytes,
            )


def _path_first(entry: Entry) -> bytes:
    """Render one entry with its path in front and a NUL between the two: one object to sort."""
    kind, mode, checksum, size_bytes, path = entry
    if "\n" in path:
        raise _unfit_path(path, "a path holds no line feed")
    try:
        return f"{path}\0{kind} {mode:o} {checksum} {size_bytes}".encode()
    except UnicodeEncodeError:
        raise _unfit_path(path, _NOT_UTF8) from None


def _entry(line: bytes) -> Entry:
    kind, mode, checksum, size, path = line.decode().split(" ", 4)
    return Entry(cast("Literal['F', 'D']", kind), int(mode, 8), Digest(checksum), int(size), path)


def _is_canonical(raw: bytes) -> bool:
    """Tell whether there is nothing that `_canonical` would change."""
    return (
        raw.endswith(b"\n")
        and not raw.startswith((b"#", b"\n"))
        and b"\n#" not in raw
        and b"\n\n" not in raw
    )


def _canonical(raw: bytes) -> bytes:
    """Drop comments and empty lines, and end with one LF."""
    ended = raw if raw.endswith(b"\n") else raw + b"\n"
    return _UNCOUNTED.sub(b"", ended) or b"\n"


class _Columns(NamedTuple):
    starts: array[int]
    """Where each line starts, and the end of the text."""
    file_count: int
    total_bytes: int


_NOT_UTF8 = "the text is UTF-8"
_NO_FINAL_LF = "the text that the ID covers ends with one LF"
_NO_ROOT = "the first entry is the root: D ./"
_UNSORTED = "entries are in the order of the bytes of their paths"
_DUPLICATE = "a path is listed once"
_NO_PARENT = "every parent is listed as a directory"
_FILE_AND_DIRECTORY = "a path is either a file or a directory"
_BAD_SIZE = "a size is a decimal number below 2^64 without sign or leading zero"


class _BrokenError(Exception):
    """Line `index` of the canonical text, counted from 0, breaks `rule`."""

    def __init__(self, index: int, rule: str) -> None:
        self.index = index
        self.rule = rule


def _validate(text: bytes) -> _Columns:
    starts: array[int] = array("Q", [0])
    file_count = total_bytes = 0
    tree = _TreeRules()
    if not text.endswith(b"\n"):
        raise _BrokenError(text.count(b"\n"), _NO_FINAL_LF)
    for block in _blocks(text):
        first = len(starts) - 1
        lines = block[:-1].split(b"\n")
        rows = cast("list[tuple[bytes, bytes, bytes]]", _LINE.findall(block))
        if len(rows) != len(lines) or not _is_utf8(block):
            raise _first_broken_line(first, lines)
        tree.check(first, rows)
        sizes = [int(size) for _, size, _ in rows]
        if max(sizes) > SIZE_MAX_BYTES:
            raise _BrokenError(first + sizes.index(max(sizes)), _BAD_SIZE)
        file_count += sum(1 for is_file, _, _ in rows if is_file)
        total_bytes += sum(
            size for size, (is_file, _, _) in zip(sizes, rows, strict=True) if is_file
        )
        ends = accumulate((len(line) + 1 for line in lines), initial=starts[-1])
        next(ends)
        starts.extend(ends)
    return _Columns(starts, file_count, total_bytes)


def _blocks(text: bytes) -> Iterator[bytes]:
    """Cut a text that ends with LF after whole lines."""
    start = 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + _BLOCK_BYTES) + 1
        end = end or text.find(b"\n", start) + 1
        yield text[start:end]
        start = end


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


class _TreeRules:
    """The rules that concern more than one line, fed with rows in text order.

    In byte order everything below `x/` follows it without a gap, and so does everything that
    starts with `x`. Hence a stack of open directories finds every missing parent, and only a file
    that its direct successor starts with can be a directory too.
    """

    __slots__ = ("directories", "previous", "stems")

    def __init__(self) -> None:
        self.directories: list[bytes] = []
        self.previous = b""
        self.stems: set[bytes] = set()

    def check(self, first: int, rows: list[tuple[bytes, bytes, bytes]]) -> None:
        if not self.directories:
            self.directories.append(_root_of(rows))
            self.previous, rows, first = rows[0][2], rows[1:], first + 1
        directories, previous, stems = self.directories, self.previous, self.stems
        directory = directories[-1]
        for index, (is_file, _, path) in enumerate(rows, first):
            if path <= previous:
                raise _BrokenError(index, _DUPLICATE if path == previous else _UNSORTED)
            if path.startswith(previous):
                stems.add(previous)
            previous = path
            while not path.startswith(directory):
                directories.pop()
                directory = directories[-1]
            if is_file:
                if path.find(b"/", len(directory)) >= 0:
                    raise _BrokenError(index, _NO_PARENT)
                continue
            if path[:-1] in stems:
                raise _BrokenError(index, _FILE_AND_DIRECTORY)
            if path.find(b"/", len(directory)) != len(path) - 1:
                raise _BrokenError(index, _NO_PARENT)
            directories.append(path)
            directory = path
        self.previous = previous


def _root_of(rows: list[tuple[bytes, bytes, bytes]]) -> bytes:
    path = rows[0][2]
    if path != b"./":
        raise _BrokenError(0, _NO_ROOT)
    return path


_FIELD_RULES = (
    (rb"[FD]", "the type is F or D"),
    (rb"0|[1-7][0-7]{0,3}", "a mode is octal without leading zero, at most 7777"),
    (rb"[0-9a-f]{64}", "a checksum is 64 lowercase hexadecimal digits"),
    (rb"0|[1-9][0-9]{0,19}", _BAD_SIZE),
    (rb"\./(?s:.*)", "a path starts with ./"),
)


def _first_broken_line(first: int, lines: list[bytes]) -> _BrokenError:
    return next(
        _BrokenError(index, _rule_broken_by(line))
        for index, line in enumerate(lines, first)
        if _LINE.fullmatch(line + b"\n") is None or not _is_utf8(line)
    )


def _rule_broken_by(line: bytes) -> str:
    """Name the first rule that a line breaks; only called with a line that breaks one."""
    fields = line.split(b" ", 4)
    if not line:
        return _NO_ROOT
    if not _is_utf8(line):
        return _NOT_UTF8
    if len(fields) != 5:
        return "a line has five fields: type, mode, checksum, size and path, one space apart"
    for field, (pattern, rule) in zip(fields, _FIELD_RULES, strict=True):
        if re.fullmatch(pattern, field) is None:
            return rule
    return _rule_broken_by_path(fields[4], is_file=fields[0] == b"F")


def _rule_broken_by_path(path: bytes, *, is_file: bool) -> str:
    if b"\x00" in path:
        return "a path holds no NUL"
    if is_file and path.endswith(b"/"):
        return "the path of a file does not end with /"
    if not is_file and not path.endswith(b"/"):
        return "the path of a directory ends with /"
    components = path.removeprefix(b"./").removesuffix(b"/").split(b"/")
    if b"" in components:
        return "a path has no empty component"
    if b"." in components or b".." in components:
        return "a path has no component . or .."
    if any(len(component) > COMPONENT_MAX_BYTES for component in components):
        return f"a component of a path has at most {COMPONENT_MAX_BYTES} bytes"
    return "the name of a file does not end with a carriage return"


def _refusal(
    raw: bytes, text: bytes, snapshot_id: SnapshotId, broken: _BrokenError
) -> ManifestRefused:
    line = text.split(b"\n", broken.index + 1)[broken.index]
    fields = line.split(b" ", 4)
    path = (fields[4] if len(fields) == 5 else line).decode("utf-8", "backslashreplace")
    line_number = broken.index + 1
    if text is not raw:
        line_number = _line_number_in(raw, broken.index)
    return ManifestRefused(
        f"the manifest of {snapshot_id} is refused: line {line_number}, {_shown(path)}:"
        f" {broken.rule}",
        line_number=line_number,
        path=path,
        rule=broken.rule,
    )


def _line_number_in(raw: bytes, index: int) -> int:
    """Tell where in `raw`, counted from 1, the line `index` of its canonical text stands."""
    passed = position = 0
    for run in _UNCOUNTED.finditer(raw):
        counted = raw.count(b"\n", position, run.start())
        if index < counted:
            break
        index -= counted
        position = run.end()
        passed += counted + raw.count(b"\n", run.start(), position)
    lines = raw.count(b"\n") + (not raw.endswith(b"\n"))
    return min(passed + index + 1, lines)


def _unfit_path(path: str, rule: str) -> ManifestRefused:
    return ManifestRefused(
        f"the format can't carry {_shown(path)}: {rule}", line_number=0, path=path, rule=rule
    )


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else f"{path[:200]}...")
