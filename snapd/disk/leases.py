"""Who holds which snapshot: one small file a lease, `leases/<lease>.json`.

The files are the truth: they outlive the index and the daemon, and several processes may write
them. Whether a lease still holds is found out when somebody asks, never remembered. What can't be
found out counts as holding: a snapshot too many costs space, one too few a training run.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from snapd.disk import fsops
from snapd.disk.locks import giving_lock
from snapd.disk.processes import mark_process, may_live
from snapd.model.errors import (
    LeaseNotFound,
    LeaseOfAnother,
    QueueFull,
    SnapshotNotFound,
    SnapsyncError,
    UsageError,
)
from snapd.model.ids import SnapshotId
from snapd.model.leases import Lease, LeaseRequest, is_lease_id, lease_prefix, time_lease

if TYPE_CHECKING:
    from snapd.model.jobs import SnapshotView

KUBELET_DIRECTORY = Path("/var/lib/kubelet")
LEASES_MAX = 10_000
_FILE_MAX_BYTES = 64 * 1024
_SUFFIX = ".json"
_NEW_SUFFIX = ".new"
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Leases:
    """The leases of one state directory, which need not be open as a cache.

    Without a `kubelet_directory` nobody knows which pods there are, so that they all count.
    Every call blocks; safe to use from many threads and many processes.
    """

    def __init__(
        self,
        state_directory: Path,
        *,
        now: Callable[[], float],
        kubelet_directory: Path | None = KUBELET_DIRECTORY,
        durable: bool = True,
    ) -> None:
        self.root = state_directory / "leases"
        self._trees = state_directory / "trees"
        self._locks = state_directory / "locks"
        self._pods = None if kubelet_directory is None else kubelet_directory / "pods"
        self._durable = durable
        self._now = now

    def add(self, request: LeaseRequest, *, pid: int = 0, uid: int | None = None) -> Lease:
        """Hold a snapshot from now on, durably; one by the same holder and user is replaced.

        Only a pin asks that the snapshot is here: whoever is about to use it leases first and
        looks then. `pid` is the process of a process lease. Raises `UsageError` if link or pod are
        not what they should be as seen from here, `SnapshotNotFound`, `QueueFull`, `NoSpace`.
        """
        request.check()
        lease = self._make(request, pid, uid)
        self._check_subject(lease)
        with fsops.translated("can't write a lease", self.root):
            self.root.mkdir(mode=0o700, exist_ok=True)
            with giving_lock(self._locks):
                if lease.kind == "pin" and not (self._trees / lease.snapshot_id).is_dir():
                    raise SnapshotNotFound(
                        f"the cache has no snapshot {lease.snapshot_id} to pin",
                        hint="Pull it first: snapctl pull --id ID --store URI.",
                        id=lease.snapshot_id,
                    )
                self._tidy()
                former = [each for each in self._of(lease.snapshot_id) if _replaces(lease, each)]
                self._write(lease)
                for each in former:
                    self._unlink(each.lease_id)
        return lease

    def remove(self, lease_id: str, *, by_uid: int | None = None) -> Lease:
        """End a lease before its time; raises `LeaseNotFound`.

        With `by_uid` only that user's own; raises `LeaseOfAnother` for any other.
        """
        with fsops.translated("can't remove a lease", self.root):
            lease = self._read(lease_id) if is_lease_id(lease_id) else None
            if lease is None:
                raise LeaseNotFound(f"no lease {lease_id[:80]!r}")
            if lease.kind == "follow":
                raise LeaseOfAnother(
                    f"the lease {lease_id} is that of a follow",
                    hint=f"It ends with it: snapctl follow stop {lease.subject}.",
                )
            if by_uid is not None and lease.uid != by_uid:
                raise LeaseOfAnother(f"the lease {lease_id} is not one of user {by_uid}")
            (self.root / f"{lease_id}{_SUFFIX}").unlink(missing_ok=True)
        return lease

    def hold_for_follow(self, dest: str, snapshot_ids: Iterable[SnapshotId]) -> None:
        """Hold exactly these snapshots for a follow, durably; none is let go before all are held.

        Nothing else ends such a lease: the daemon that follows says what it needs.
        """
        wanted = set(snapshot_ids)
        with fsops.translated("can't write a lease", self.root):
            self.root.mkdir(mode=0o700, exist_ok=True)
            with giving_lock(self._locks):
                of_it = [x for x in self.iterate() if x.kind == "follow" and x.subject == dest]
                for snapshot_id in wanted - {each.snapshot_id for each in of_it}:
                    lease_id = f"{lease_prefix(snapshot_id)}{os.urandom(6).hex()}"
                    since = self._now()
                    self._write(Lease(lease_id, snapshot_id, "follow", since, subject=dest))
                for each in of_it:
                    if each.snapshot_id not in wanted:
                        self._unlink(each.lease_id)

    def followed(self) -> set[str]:
        """Name the destinations for which follows hold something."""
        return {lease.subject for lease in self.iterate() if lease.kind == "follow"}

    def iterate(self) -> Iterator[Lease]:
        """Walk all leases on the disk, those too that hold nothing any more."""
        for lease_id in self._ids():
            lease = self._read(lease_id)
            if lease is not None:
                yield lease

    def holding(self, snapshot_id: SnapshotId) -> list[Lease]:
        """List the leases that hold one snapshot, the oldest first; dead ones are removed."""
        return self._only_alive(self._of(snapshot_id))

    def held(self) -> dict[SnapshotId, list[Lease]]:
        """List all leases that hold something, by snapshot; dead ones are removed."""
        found: dict[SnapshotId, list[Lease]] = defaultdict(list)
        for lease in self._only_alive(self.iterate()):
            found[lease.snapshot_id].append(lease)
        return dict(found)

    def listed(self, views: Iterable[SnapshotView], *, lease_seconds: float) -> list[Lease]:
        """List everything that holds, by snapshot: the leases here, and paths given out lately."""
        found = [lease for leases in self.held().values() for lease in leases]
        now = self._now()
        for view in views:
            lease = time_lease(view, lease_seconds=lease_seconds, now=now)
            if lease is not None:
                found.append(lease)
        return sorted(found, key=lambda each: (each.snapshot_id, each.since, each.lease_id))

    def alive(self, lease: Lease) -> bool:
        """Tell whether a lease still holds; what can't be found out counts as holding."""
        return self._certain(lease) is not False

    def _only_alive(self, leases: Iterator[Lease]) -> list[Lease]:
        found = []
        for lease in leases:
            if self.alive(lease):
                found.append(lease)
            else:
                self._unlink(lease.lease_id)
        return sorted(found, key=lambda each: (each.since, each.lease_id))

    def _certain(self, lease: Lease) -> bool | None:
        """Tell whether a lease holds; None if nobody knows."""
        if lease.process is not None:
            return may_live(lease.process)
        if lease.kind == "link":
            return _points_at(lease.subject, lease.snapshot_id)
        if lease.kind == "pod":
            return self._has_pod(lease.subject)
        return True

    def _has_pod(self, uid: str) -> bool | None:
        """Tell whether the kubelet still has the pod; without any pods' directory nobody knows."""
        if self._pods is None:
            return None
        try:
            return stat.S_ISDIR(os.lstat(self._pods / uid).st_mode)
        except FileNotFoundError:
            return False if self._pods.is_dir() else None
        except OSError:
            return None

    def _make(self, request: LeaseRequest, pid: int, uid: int | None) -> Lease:
        lease_id = f"{lease_prefix(request.snapshot_id)}{os.urandom(6).hex()}"
        return Lease(
            lease_id,
            request.snapshot_id,
            request.kind,
            since=self._now(),
            subject=request.subject,
            reason=request.reason,
            uid=uid,
            process=mark_process(pid) if request.kind == "process" else None,
        )

    def _check_subject(self, lease: Lease) -> None:
        if self._certain(lease):
            return
        if lease.kind == "link":
            raise UsageError(
                f"{lease.subject!r} is not seen here as a link to snapshot {lease.snapshot_id}",
                hint="In a container, or below a directory that the daemon may not enter, a link"
                " can't hold a snapshot: pin it (snapctl cache pin), or name the pod (--pod).",
            )
        if lease.kind == "pod":
            raise UsageError(
                f"no pod {lease.subject} is seen here: {self._pods}/{lease.subject}",
                hint="Mount the kubelet's directory for the daemon, and name it in"
                " `[cache] kubelet_directory` if it lies elsewhere.",
            )
        raise UsageError(f"{lease.holder} is not seen here")

    def _of(self, snapshot_id: SnapshotId) -> Iterator[Lease]:
        prefix = lease_prefix(snapshot_id)
        for lease_id in self._ids():
            if lease_id.startswith(prefix):
                lease = self._read(lease_id)
                if lease is not None and lease.snapshot_id == snapshot_id:
                    yield lease

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []

    def _ids(self) -> list[str]:
        with fsops.translated("can't list the leases", self.root):
            ids = (name.removesuffix(_SUFFIX) for name in self._names() if name.endswith(_SUFFIX))
            return [lease_id for lease_id in ids if is_lease_id(lease_id)]

    def _read(self, lease_id: str) -> Lease | None:
        """Read one lease; None if it is gone. One that can't be read holds like a pin."""
        path = self.root / f"{lease_id}{_SUFFIX}"
        try:
            with open(path, "rb") as source:
                lease = Lease.from_json(json.loads(source.read(_FILE_MAX_BYTES)))
            if lease.lease_id == lease_id and lease_id.startswith(lease_prefix(lease.snapshot_id)):
                return lease
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, SnapsyncError) as exc:
            import logging

            logging.getLogger(__name__).warning("can't read the lease %s: %s", path, exc)
        return self._unreadable(lease_id)

    def _unreadable(self, lease_id: str) -> Lease | None:
        """Make up a lease for one that is damaged, by what its name says; None if that is void."""
        prefix = lease_id.partition("-")[0]
        with suppress(OSError):
            for name in os.listdir(self._trees):
                if name.startswith(prefix):
                    reason = "a lease that can't be read"
                    return Lease(lease_id, SnapshotId(name), "pin", since=0.0, reason=reason)
        return None

    def _tidy(self) -> None:
        """Remove what dead writers left, and refuse more leases than there may be.

        Only while nobody else writes: names of writing are then those of the dead.
        """
        names = self._names()
        for name in names:
            if name.endswith(_NEW_SUFFIX):
                (self.root / name).unlink(missing_ok=True)
        if len(names) >= LEASES_MAX and sum(map(len, self.held().values())) >= LEASES_MAX:
            raise QueueFull(
                f"there are {LEASES_MAX} leases already",
                hint="`snapctl leases` lists them; unpin what is not needed.",
            )

    def _write(self, lease: Lease) -> None:
        name, new = f"{lease.lease_id}{_SUFFIX}", f"{lease.lease_id}{_NEW_SUFFIX}"
        durable = self._durable and lease.kind != "process"  # no process outlives a power loss
        data = json.dumps(lease.to_json(), indent=1).encode("ascii")
        try:
            fd = os.open(self.root / new, _MAKE, 0o600)
            try:
                fsops.write_all(fd, data)
                if durable:
                    fsops.fsync(fd)
            finally:
                os.close(fd)
            os.rename(self.root / new, self.root / name)
        except BaseException:
            (self.root / new).unlink(missing_ok=True)
            raise
        if durable:
            fsops.fsync_directory(self.root)

    def _unlink(self, lease_id: str) -> None:
        """Remove a file that says nothing; if that can't be, it goes on saying nothing."""
        with suppress(OSError):
            (self.root / f"{lease_id}{_SUFFIX}").unlink()


def _replaces(new: Lease, former: Lease) -> bool:
    """Tell whether a lease takes the place of a former one: nobody ends what another user holds."""
    return former.same_holder(new) and former.uid == new.uid


def _points_at(link: str, snapshot_id: SnapshotId) -> bool | None:
    """Tell whether a path is a link to a tree of the snapshot; None if nobody may know.

    The path came from a client: it is asked where it points, and never opened or followed.
    """
    try:
        target = os.readlink(link)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        return False if exc.errno == errno.EINVAL else None
    return os.path.basename(target.rstrip("/")) == snapshot_id
