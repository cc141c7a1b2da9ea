"""What is complete in the cache and what was verified when, in SQLite.

Quick to ask, and rebuilt if it is lost: snapshots from the disk, the records of blobs by hashing
each once more when it is used next.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from snapd.model.errors import CacheUnusable, NoSpace
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.jobs import SnapshotView

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_SECONDS = 30.0
_INTEGER_MAX = 2**63 - 1
_FULL_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_DAMAGED_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_ODD_CODES = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY})
"""What a damaged header or schema looks like; only while opening, when no statement is wrong."""

_T = TypeVar("_T")

_CREATE = """
CREATE TABLE IF NOT EXISTS snapshots (
    snapshot_id TEXT PRIMARY KEY,
    store TEXT NOT NULL,
    files INTEGER NOT NULL,
    objects INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    completed_at REAL NOT NULL,
    used_at REAL NOT NULL
) WITHOUT ROWID
"""
_CREATE_BLOBS = """
CREATE TABLE IF NOT EXISTS blobs (
    key INTEGER PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    verified_at INTEGER NOT NULL
)
"""
_CREATE_SCRUB = """
CREATE TABLE IF NOT EXISTS scrub (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position TEXT NOT NULL,
    began_at REAL NOT NULL,
    ended_at REAL NOT NULL
)
"""
_TABLES = (_CREATE, _CREATE_BLOBS, _CREATE_SCRUB)
_KEY_OFFSET = 2**63
"""Keys of blobs have 64 bits and no sign, integers of SQLite have one; the order is kept."""

_COLUMNS = "snapshot_id, store, files, objects, size_bytes, completed_at, used_at"
_COLUMN_TYPES = (str, str, int, int, int, float, float)
_CLOCK_SLACK_SECONDS = 60.0
"""Threads and processes write times down a little out of order; clocks are wrong by more."""


BlobRow = tuple[int, int, int, int, int, int]
"""What `stat` told of a blob when it was verified: its `eviction.blob_key`, size in bytes, inode,
mtime and ctime in ns; and when it was verified, in seconds."""


class ScrubState(NamedTuple):
    """How far a round of the scrub is, and when the last one began and ended; 0: not yet.

    `position` is the name of the last blob that was hashed; empty between two rounds.
    """

    position: str = ""
    began_at: float = 0.0
    ended_at: float = 0.0


class Index:
    """Rows of complete snapshots and of verified blobs, for many threads and many processes.

    A file that turns out to be damaged while it is in use is moved aside, and a new one begun.
    Raises `NoSpace` if the disk is full and `CacheUnusable` if SQLite can't work.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, trees_root: Path) -> None:
        self._connection = connection
        self._path = path
        self._trees_root = trees_root
        self._one_at_a_time = threading.Lock()
        self._unwritten: dict[SnapshotId, float] = {}
        self.lost_rows = False
        """Set when rows were lost while the index was in use; whoever restores them clears it."""

    @classmethod
    def open(cls, path: Path, trees_root: Path) -> Index:
        """Open the index or start an empty one; a damaged file is moved aside as `*.damaged`."""
        try:
            return cls(_connect(path), path, trees_root)
        except _DamagedError:
            _move_aside(path)
        try:
            return cls(_connect(path), path, trees_root)
        except _DamagedError as exc:
            raise CacheUnusable(f"SQLite can't work in {path.parent}: {exc}") from exc

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def record_complete(self, view: SnapshotView) -> None:
        """Write down that a snapshot is complete; an older row of it is replaced."""
        self._execute(
            f"INSERT OR REPLACE INTO snapshots ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                view.snapshot_id,
                view.store,
                view.files,
                view.objects,
                min(view.size_bytes, _INTEGER_MAX),
                view.completed_at,
                view.used_at,
            ),
        )

    def touch(self, snapshot_id: SnapshotId, now: float) -> None:
        """Write down that a snapshot was used; nothing happens if it has no row.

        A time that is far ahead is of a clock that was wrong, and gives way. On a full disk this
        process alone remembers the time: what is complete can be used all the same.
        """
        try:
            self._execute(
                "UPDATE snapshots SET used_at = CASE WHEN used_at > ? THEN ? "
                "ELSE max(used_at, ?) END WHERE snapshot_id = ?",
                (now + _CLOCK_SLACK_SECONDS, now, now, snapshot_id),
            )
        except NoSpace:
            self._unwritten[snapshot_id] = now
        else:
            self._unwritten.pop(snapshot_id, None)

    def forget(self, snapshot_id: SnapshotId) -> None:
        """Remove a row; an absent one is no error."""
        self._execute("DELETE FROM snapshots WHERE snapshot_id = ?", (snapshot_id,))

    def find(self, snapshot_id: SnapshotId) -> SnapshotView | None:
        """Read one row."""
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM snapshots WHERE snapshot_id = ?", (snapshot_id,)
        )
        return self._view(rows[0]) if rows else None

    def record_blobs(self, rows: Iterable[BlobRow]) -> None:
        """Write down blobs that were verified, all in one go; older rows are replaced."""
        ordered = [(row[0] - _KEY_OFFSET, *row[1:]) for row in sorted(rows)]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(
                    "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?)", ordered
                )
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

        if ordered:
            self._run(write)

    def blobs(self, keys: Iterable[int]) -> list[BlobRow]:
        """Read what is written down of these blobs; some thousands at a time, please."""
        wanted = json.dumps([key - _KEY_OFFSET for key in keys])
        rows = self._execute(
            "SELECT * FROM blobs WHERE key IN (SELECT value FROM json_each(?))", (wanted,)
        )
        return [(key + _KEY_OFFSET, *record) for key, *record in rows]

    def forget_blobs_before(self, verified_before: float, first: int, last: int) -> None:
        """Remove rows with keys in a range that nobody has renewed since a moment."""
        self._execute(
            "DELETE FROM blobs WHERE key BETWEEN ? AND ? AND verified_at < ?",
            (first - _KEY_OFFSET, last - _KEY_OFFSET, verified_before),
        )

    def scrub_state(self) -> ScrubState:
        """Read how far the scrub is."""
        rows = self._execute("SELECT position, began_at, ended_at FROM scrub")
        return ScrubState(*rows[0]) if rows else ScrubState()

    def record_scrub(self, state: ScrubState) -> None:
        """Write down how far the scrub is."""
        self._execute("INSERT OR REPLACE INTO scrub VALUES (1, ?, ?, ?)", tuple(state))

    def snapshots(self) -> list[SnapshotView]:
        """Read all rows, the most recently used first."""
        rows = self._execute(f"SELECT {_COLUMNS} FROM snapshots ORDER BY used_at DESC, snapshot_id")
        return [self._view(row) for row in rows]

    def _view(self, row: tuple[Any, ...]) -> SnapshotView:
        snapshot_id, store, files, objects, size_bytes, completed_at, used_at = row
        return SnapshotView(
            snapshot_id=snapshot_id,
            store=store,
            tree=os.fspath(self._trees_root / snapshot_id),
            files=files,
            objects=objects,
            size_bytes=size_bytes,
            completed_at=completed_at,
            used_at=max(used_at, self._unwritten.get(snapshot_id, 0.0)),
        )

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return self._run(lambda connection: connection.execute(statement, values).fetchall())

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._one_at_a_time:
            try:
                with _translated(self._path):
                    return work(self._connection)
            except CacheUnusable as exc:
                if not isinstance(exc.__cause__, sqlite3.Error) or not _is_damage(exc.__cause__):
                    raise
                logger.warning("the index is damaged: %s; beginning a new one", exc.__cause__)
                self._begin_anew()
            with _translated(self._path):
                return work(self._connection)

    def _begin_anew(self) -> None:
        """Put a new file in the place of a damaged one; `lost_rows` says so to who can fill it."""
        self._connection.close()
        _move_aside(self._path)
        try:
            self._connection = _connect(self._path)
        except _DamagedError as exc:
            raise CacheUnusable(f"SQLite can't work in {self._path.parent}: {exc}") from exc
        self.lost_rows = True


class _DamagedError(Exception):
    """The file is no database that we can read."""


def _connect(path: Path) -> sqlite3.Connection:
    with _translated(path):
        connection = sqlite3.connect(
            path,
            timeout=_BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
    try:
        with _translated(path):
            _prepare(connection)
    except BaseException as exc:
        connection.close()
        # Python can't even read SQLite's complaint if that quotes damaged text.
        cause = exc if isinstance(exc, UnicodeDecodeError) else exc.__cause__
        if isinstance(cause, UnicodeDecodeError) or (
            isinstance(cause, sqlite3.Error) and (_is_damage(cause) or _code(cause) in _ODD_CODES)
        ):
            raise _DamagedError(str(exc)) from exc
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _SCHEMA_VERSION):
        raise _DamagedError(f"the index has schema {version}")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _DamagedError(str(verdict))
    _check_contents(connection)


def _check_contents(connection: sqlite3.Connection) -> None:
    """Find damage that leaves a database in order: SQLite has no checksums."""
    tables = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    ours = {statement.replace("IF NOT EXISTS ", "").strip() for statement in _TABLES}
    if {sql.strip() for (sql,) in tables} != ours:
        raise _DamagedError("its tables are not ours")
    for row in connection.execute(f"SELECT {_COLUMNS} FROM snapshots"):
        if tuple(map(type, row)) != _COLUMN_TYPES or not is_digest(row[0]):
            raise _DamagedError("a row of it is not ours")


def _is_damage(error: sqlite3.Error) -> bool:
    # That a text is not UTF-8 is a complaint of Python's, without a code.
    return _code(error) in _DAMAGED_CODES or "Could not decode" in str(error)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", 0)
        message = f"can't use the index {path}: {exc}"
        if code in _FULL_CODES or code & 0xFF == sqlite3.SQLITE_FULL:
            raise NoSpace(message, directory=os.fspath(path.parent)) from exc
        raise CacheUnusable(message) from exc


def _move_aside(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")
    with suppress(FileNotFoundError):
        os.replace(path, f"{path}.damaged")
