"""Hold snapshots in a cache: told to the daemon that keeps it, or written where it lies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from snapctl.context import Context
from snapctl.reattaching import outlast
from snapd.model.errors import SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.leases import Lease, LeaseRequest, fit_reason

if TYPE_CHECKING:
    from snapctl.client import Client
    from snapd.disk.leases import Leases
    from snapd.model.settings import Settings


def _now() -> float:
    return time.time()  # noqa: TID251 - the clock that the cache is given


class Keeper(Protocol):
    """Who keeps the leases of one cache."""

    def trees_directory(self) -> Path:
        """Tell where the trees of the cache lie."""
        ...

    def add(self, request: LeaseRequest) -> Lease:
        """Hold a snapshot; a process lease is this process's own."""
        ...

    def remove(self, lease_id: str) -> Lease:
        """End a lease; raises `LeaseNotFound`."""
        ...

    def leases(self) -> list[Lease]:
        """List what is held now."""
        ...

    def manifest_text(self, snapshot_id: SnapshotId) -> bytes:
        """Read the manifest of a complete snapshot; whoever uses it compares its hash."""
        ...


class DaemonKeeper:
    """The cache of the daemon."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def trees_directory(self) -> Path:
        """Ask the daemon."""
        return Path(self._client.trees_directory())

    def add(self, request: LeaseRequest) -> Lease:
        """Tell the daemon; it knows this process by the connection."""
        return self._client.add_lease(request)

    def remove(self, lease_id: str) -> Lease:
        """Tell the daemon."""
        return self._client.remove_lease(lease_id)

    def leases(self) -> list[Lease]:
        """Ask the daemon."""
        return self._client.leases()

    def manifest_text(self, snapshot_id: SnapshotId) -> bytes:
        """Ask the daemon, whose directory of manifests this process may not see."""
        return outlast(lambda: self._client.manifest(snapshot_id))


class OwnKeeper:
    """A cache that this user may write to, whether or not a daemon has it open too."""

    def __init__(self, state_directory: Path, settings: Callable[[], Settings]) -> None:
        self._state_directory = state_directory
        self._settings = settings

    def trees_directory(self) -> Path:
        """Tell where the trees of the cache lie."""
        return self._state_directory / "trees"

    def add(self, request: LeaseRequest) -> Lease:
        """Write the lease; the state directory is laid out if this is its first use."""
        if not (self._state_directory / "version").exists():
            from snapd.disk.cache import open_cache

            with open_cache(self._state_directory, now=_now):
                pass
        leases = self._leases_of_processes() if request.kind == "process" else self._leases()
        return leases.add(request, pid=os.getpid(), uid=os.getuid())

    def remove(self, lease_id: str) -> Lease:
        """Remove the lease's file."""
        return self._leases_of_processes().remove(lease_id)

    def leases(self) -> list[Lease]:
        """Read the leases, and the index for the paths given out lately."""
        from snapd.disk.index import Index

        views = []
        index_path = self._state_directory / "index.sqlite3"
        if index_path.exists():
            index = Index.open(index_path, self.trees_directory())
            try:
                views = index.snapshots()
            finally:
                index.close()
        return self._leases().listed(views, lease_seconds=self._settings().cache.lease_seconds)

    def manifest_text(self, snapshot_id: SnapshotId) -> bytes:
        """Read the file."""
        return (self._state_directory / "manifests" / snapshot_id).read_bytes()

    def _leases(self) -> Leases:
        from snapd.disk.leases import Leases

        settings = self._settings().cache
        return Leases(
            self._state_directory,
            now=_now,
            kubelet_directory=Path(settings.kubelet_directory),
            durable=settings.fsync == "batch",
        )

    def _leases_of_processes(self) -> Leases:
        """Give what needs no settings: they take longer to read than a lease to write."""
        from snapd.disk.leases import Leases

        return Leases(self._state_directory, now=_now, kubelet_directory=None)


def keeper(context: Context, *, here: bool, cache_dir: str | None) -> Keeper:
    """Choose the keeper that goes with a pull: the daemon, or the cache of a standalone one."""
    if not here:
        return DaemonKeeper(context.client())
    from snapctl.caches import own_cache_directory

    return OwnKeeper(own_cache_directory(context, cache_dir), context.settings)


def keeper_of(context: Context, trees_directory: Path) -> Keeper:
    """Choose the keeper of trees that were found: the daemon if they are the daemon's."""
    with suppress(SnapsyncError):
        client = context.client()
        if Path(client.trees_directory()) == trees_directory:
            return DaemonKeeper(client)
    return OwnKeeper(trees_directory.parent, context.settings)


@contextmanager
def held_meanwhile(keeper: Keeper | None, snapshot_id: SnapshotId, reason: str) -> Iterator[None]:
    """Hold a snapshot for this process during the block, if that can be.

    Somebody else's cache may be read without being allowed to hold anything in it.
    """
    lease = None
    if keeper is not None:
        with suppress(SnapsyncError, OSError):
            request = LeaseRequest(snapshot_id, "process", reason=fit_reason(reason))
            lease = keeper.add(request)
    try:
        yield
    finally:
        if keeper is not None and lease is not None:
            with suppress(SnapsyncError, OSError):
                keeper.remove(lease.lease_id)


def hold_link(context: Context, keeper: Keeper, snapshot_id: SnapshotId, link: Path) -> None:
    """Hold a snapshot as long as a link points at its tree; says so if that can't be."""
    try:
        request = LeaseRequest(snapshot_id, "link", subject=os.path.abspath(link))
        outlast(lambda: keeper.add(request))
    except SnapsyncError as error:
        context.output.note(f"warning: the link does not keep the snapshot: {error.message}")
        context.output.note(f"hint: {error.hint}")
