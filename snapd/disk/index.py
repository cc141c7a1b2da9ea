"""What is complete in the cache, in SQLite: quick to ask, and rebuilt from disk if it is lost."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snapd.model.errors import CacheUnusable, NoSpace
from snapd.model.ids import SnapshotId
from snapd.model.jobs import SnapshotView

_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_SECONDS = 30.0
_INTEGER_MAX = 2**63 - 1
_FULL_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_DAMAGED_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

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
_COLUMNS = "snapshot_id, store, files, objects, size_bytes, completed_at, used_at"


class Index:
    """The rows of complete snapshots. Safe to use from many threads and many processes.

    Raises `NoSpace` if the disk is full and `CacheUnusable` if SQLite can't work.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, trees_root: Path) -> None:
        self._connection = connection
        self._path = path
        self._trees_root = trees_root
        self._one_at_a_time = threading.Lock()

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
        """Write down that a snapshot was used; nothing happens if it has no row."""
        self._execute(
            "UPDATE snapshots SET used_at = max(used_at, ?) WHERE snapshot_id = ?",
            (now, snapshot_id),
        )

    def forget(self, snapshot_id: SnapshotId) -> None:
        """Remove a row; an absent one is no error."""
        self._execute("DELETE FROM snapshots WHERE snapshot_id = ?", (snapshot_id,))

    def find(self, snapshot_id: SnapshotId) -> SnapshotView | None:
        """Read one row."""
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM snapshots WHERE snapshot_id = ?", (snapshot_id,)
        )
        return self._view(rows[0]) if rows else None

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
            used_at=used_at,
        )

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._one_at_a_time, _translated(self._path):
            return self._connection.execute(statement, values).fetchall()


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
        if isinstance(exc.__cause__, sqlite3.Error) and _is_damage(exc.__cause__):
            raise _DamagedError(str(exc)) from exc
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _SCHEMA_VERSION):
        raise _DamagedError(f"the index has schema {version}")
    connection.execute(_CREATE)
    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _DamagedError(str(verdict))


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _DAMAGED_CODES


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
