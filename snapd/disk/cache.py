"""The state directory: opened, put in order, and the order in which a snapshot becomes complete.

    blobs/<first 2 hex>/<digest>.<mode>   verified objects
    manifests/<id>                        verified manifests
    trees/<id>/                           complete snapshots, hard links to blobs
    receipts/<id>.json                    what the pull that brought a snapshot proved
    leases/<lease>.json                   who holds which snapshot
    staging/<random>/                     half-done work, one directory a process
    quarantine/                           wrong bytes, kept for a look
    repairs/                              objects whose trees have to be repaired
    orders/<job>.json                     pulls for which nobody waits but the daemon
    follows/<follow>.json                 references that the daemon keeps live, and how they stand
    index.sqlite3                         what is complete, how big, last used
    locks, version                        locks between processes; the layout's version

Blobs durable, manifest durable, tree visible, index row: in that order, whatever kills us between.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from snapd.disk import fsops
from snapd.disk.blobs import Blobs
from snapd.disk.follows import Follows
from snapd.disk.index import Index
from snapd.disk.joining import PressTerms
from snapd.disk.layout import LAYOUT_VERSION, bring_up_to_date, read_version, write_version
from snapd.disk.leases import KUBELET_DIRECTORY, Leases
from snapd.disk.locks import RangeLock, giving_lock, opening_lock, snapshot_lock
from snapd.disk.manifests import Manifests
from snapd.disk.mending import Mender
from snapd.disk.orders import Orders
from snapd.disk.publishing import SHARDS, Press
from snapd.disk.quarantine import Quarantine
from snapd.disk.receipts import Receipts
from snapd.disk.records import Records
from snapd.disk.reliance import Reliance
from snapd.disk.repairs import Blob, Repairs
from snapd.disk.seal import SealMode, SealState, choose_seal
from snapd.disk.staging import Leftover, Staging, boot_id, find_leftovers
from snapd.disk.trees import OnProgress, Trees
from snapd.disk.trust import OnRehash, Trust, tell_nobody
from snapd.model.errors import CacheUnusable, ObjectLost, SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.jobs import SnapshotView
from snapd.model.manifest import Manifest
from snapd.model.receipts import Receipt
from snapd.model.settings import MIB

logger = logging.getLogger(__name__)

MakeReceipt = Callable[[Sequence[int], Sequence[int]], Receipt]
"""Told the entries of all distinct objects, and when each of them was verified."""

QUARANTINE_MAX_BYTES = 1024 * MIB

_READABLE = ("blobs", "manifests", "trees", "receipts")
_PRIVATE = ("staging", "quarantine", "leases", "repairs", "orders", "follows")
_UNUSABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP})
_TIME_STAMP_SLACK_NS = 2_000_000_000
"""How coarse a file system's time stamps may be."""


class Cache:
    """An open state directory. Every call blocks; all of it may be used from many threads."""

    def __init__(
        self,
        root: Path,
        *,
        blobs: Blobs,
        manifests: Manifests,
        trees: Trees,
        receipts: Receipts,
        index: Index,
        staging: Staging,
        quarantine: Quarantine,
        reliance: Reliance,
        leases: Leases,
        orders: Orders,
        follows: Follows,
        records: Records,
        repairs: Repairs,
        on_rehash: OnRehash,
        seal: SealState,
        press_terms: PressTerms,
        durable: bool,
        now: Callable[[], float],
    ) -> None:
        self.root = root
        self.press_terms = press_terms
        self.blobs = blobs
        self.manifests = manifests
        self.trees = trees
        self.receipts = receipts
        self.index = index
        self.staging = staging
        self.quarantine = quarantine
        self.seal = seal
        self.reliance = reliance
        self.leases = leases
        self.orders = orders
        self.follows = follows
        self._durable = durable
        self._now = now
        self._one_barrier = threading.Lock()
        self.records = records
        self.repairs = repairs
        self.trust = Trust(blobs, records, repairs, now=now, on_rehash=on_rehash)
        self.mender = Mender(
            blobs,
            trees,
            manifests,
            staging,
            repairs,
            prove=self.trust.prove,
            lock=self.snapshot_lock,
            barrier=self.barrier,
        )

    def publish(
        self,
        manifest: Manifest,
        *,
        store: str,
        now: float,
        receipt: MakeReceipt | None = None,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Make a snapshot complete, all of whose objects are here; returns its tree's path.

        The receipt is made and kept unless the snapshot is complete already.
        May be repeated, and by several threads and processes at once. After an error or a crash
        the snapshot is either complete or not reported as such, and nothing half-done is visible.
        Raises `NoSpace` and the like, and `ObjectLost` if an object is missing or damaged.
        """
        found = self.complete(manifest.id)
        if found is not None and found.store:
            self.index.touch(manifest.id, now)
            return self.trees.path(manifest.id)
        self.barrier()
        self.manifests.save(manifest.id, manifest.text)
        wanted = manifest.distinct_objects()
        damage_before = self.repairs.generation()
        seen = self.trust.look(manifest)
        self.trees.build(manifest, on_progress)
        if receipt is not None:
            self.receipts.save(receipt(wanted, seen.verified_at))
        self.barrier()
        replaced: list[Blob] = []
        if self.repairs.generation() == damage_before:
            self.trust.linked(manifest, seen)
        else:
            replaced = self.trust.settle(manifest, seen)
        if replaced or self.repairs.pending():
            self._mend_own(manifest.id, replaced)
        self.index.record_complete(self._view(manifest, store, now))
        return self.trees.path(manifest.id)

    def complete(self, snapshot_id: SnapshotId) -> SnapshotView | None:
        """Tell of a snapshot that is whole in the cache; None if it is not.

        A row that got lost is written anew from tree and manifest. A tree that waits for a repair
        is not whole.
        """
        if not self.trees.has(snapshot_id) or self.repairs.concern(snapshot_id):
            return None
        return self.index.find(snapshot_id) or self._restore_row(snapshot_id)

    def snapshots(self) -> list[SnapshotView]:
        """List what is complete, the last used first; rows lost meanwhile are written anew."""
        if self.index.lost_rows:
            self.index.lost_rows = False
            for snapshot_id in list(self.trees.iterate()):
                self.complete(snapshot_id)
        views = self.index.snapshots()
        if not self.repairs.pending():
            return views
        return [view for view in views if not self.repairs.concern(SnapshotId(view.snapshot_id))]

    def _mend_own(self, snapshot_id: SnapshotId, replaced: list[Blob]) -> None:
        """Repair what waits for it, this snapshot's tree included; the caller brings it in.

        `replaced` are objects whose blobs are others than those that the tree may have got.
        """
        for digest, mode in replaced:
            self.repairs.add(digest, mode)
        self.mender.mend(holding=snapshot_id)
        if self.repairs.concern(snapshot_id):
            raise ObjectLost(
                f"an object of {snapshot_id} was damaged while its tree was made",
                hint="Pull the snapshot again: only what is missing is fetched.",
                id=snapshot_id,
            )

    def barrier(self) -> None:
        """Make all that was written so far durable; does nothing if the cache was opened so."""
        if self._durable:
            self.sync()

    def sync(self) -> None:
        """Make all that was written so far durable, and note down up to when."""
        with self._one_barrier, fsops.translated("can't make data durable", self.root):
            until_ns = self.staging.clock_ns()
            fsops.syncfs(self.staging.fd)
            self.staging.mark_durable(until_ns)

    def snapshot_lock(self, snapshot_id: SnapshotId) -> RangeLock:
        """Make a lock, not yet taken, that one process at a time has for one snapshot."""
        return snapshot_lock(self.root / "locks", snapshot_id)

    def giving_lock(self) -> RangeLock:
        """Make a lock, not yet taken, that excludes giving a tree out from taking one away."""
        return giving_lock(self.root / "locks")

    def space(self) -> fsops.DiskSpace:
        """Tell the size of the cache's file system and what is free on it."""
        with fsops.translated("can't ask for free space", self.root):
            return fsops.space(self.root)

    def free_bytes(self) -> int:
        """Tell how many bytes may still be written."""
        return self.space().free_bytes

    def _restore_row(self, snapshot_id: SnapshotId) -> SnapshotView | None:
        text = self.manifests.load(snapshot_id)
        if text is None:
            return None
        manifest = Manifest.parse(text, expected_id=snapshot_id)
        view = self._view(manifest, "", self._now())
        self.index.record_complete(view)
        return view

    def _view(self, manifest: Manifest, store: str, now: float) -> SnapshotView:
        objects = manifest.objects()
        return SnapshotView(
            snapshot_id=manifest.id,
            store=store,
            tree=os.fspath(self.trees.path(manifest.id)),
            files=manifest.file_count,
            objects=objects.count,
            size_bytes=objects.size_bytes,
            completed_at=now,
            used_at=now,
        )

    def put_in_order(self, leftovers: list[Leftover]) -> None:
        """Bring the directory to where a clean stop would have left it.

        `leftovers` are of dead processes; they are removed last, so that a crash in here is
        followed by the same again.
        """
        boot = boot_id()
        lost_power = [
            left
            for left in leftovers
            if not left.wrote_nothing() and not (boot and left.boot_id() == boot)
        ]
        if lost_power:
            self._distrust(min(left.durable_until_ns() for left in lost_power))
        self._match_trees()
        if leftovers:
            self.sync()
        for left in leftovers:
            left.remove()

    def _distrust(self, since_ns: int) -> None:
        """Verify again what may not have reached the disk when the machine went down."""
        since_ns -= _TIME_STAMP_SLACK_NS
        logger.warning("the machine went down while the cache was in use; verifying what is young")
        for digest, mode in self.blobs.iterate():
            if self.blobs.changed_ns(digest, mode) >= since_ns:
                self.trust.prove(digest, mode)
        for snapshot_id in list(self.trees.iterate()):
            if self.trees.changed_ns(snapshot_id) >= since_ns:
                self._rebuild_tree(snapshot_id)

    def _rebuild_tree(self, snapshot_id: SnapshotId) -> None:
        """Lay a tree out anew; one that lacks an object or its manifest stays away."""
        self.trees.remove(snapshot_id)
        text = self.manifests.load(snapshot_id)
        if text is None:
            return
        try:
            self.trees.build(Manifest.parse(text, expected_id=snapshot_id))
        except ObjectLost as exc:
            logger.warning("snapshot %s is not complete any more: %s", snapshot_id, exc)

    def _match_trees(self) -> None:
        """Drop trees without a manifest and rows without a tree; write rows that are missing."""
        for snapshot_id in list(self.trees.iterate()):
            mode = self.manifests.root_mode(snapshot_id)
            if mode is None:
                logger.warning("the tree %s has no manifest; removing it", snapshot_id)
                self.trees.remove(snapshot_id)
            else:
                self.trees.put_right(snapshot_id, mode)
                self.complete(snapshot_id)
        for view in self.index.snapshots():
            if not self.trees.has(SnapshotId(view.snapshot_id)):
                self.index.forget(SnapshotId(view.snapshot_id))
        self.receipts.keep_only(set(self.trees.iterate()))


@contextmanager
def open_cache(
    root: Path,
    *,
    fsync: Literal["batch", "off"] = "batch",
    now: Callable[[], float],
    seal: SealMode = "auto",
    quarantine_max_bytes: int = QUARANTINE_MAX_BYTES,
    kubelet_directory: Path = KUBELET_DIRECTORY,
    node_name: str = "",
    on_rehash: OnRehash = tell_nobody,
) -> Iterator[Cache]:
    """Open the state directory, made if it is missing, for the length of the block.

    Half-done work of dead processes is swept; after a power loss whatever is younger than the last
    barrier is verified again. Several processes may have it open at once. Raises `CacheUnusable`
    for a directory that can't be written, is of a newer version or lacks hard links, or lacks the
    fs-verity that `seal` requires.
    """
    root = root.absolute()
    with ExitStack() as stack:
        try:
            cache = _open(
                stack,
                root,
                fsync,
                seal,
                now,
                quarantine_max_bytes,
                kubelet_directory,
                node_name,
                on_rehash,
            )
        except OSError as exc:
            raise _unusable(exc, root) from exc
        except SnapsyncError as exc:
            cause = exc.__cause__
            if isinstance(cause, OSError) and cause.errno in _UNUSABLE:
                raise _unusable(cause, root) from exc
            raise
        yield cache


def _unusable(error: OSError, root: Path) -> SnapsyncError:
    if error.errno in fsops.FULL_ERRNOS:
        return fsops.translate(error, "can't open the cache", root)
    where = f" ({error.filename})" if error.filename else ""
    return CacheUnusable(
        f"can't use {root} as a cache: {os.strerror(error.errno or 0)}{where}",
        directory=os.fspath(root),
    )


def _open(
    stack: ExitStack,
    root: Path,
    fsync: Literal["batch", "off"],
    seal_mode: SealMode,
    now: Callable[[], float],
    quarantine_max_bytes: int,
    kubelet_directory: Path,
    node_name: str,
    on_rehash: OnRehash,
) -> Cache:
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    with opening_lock(root / "locks"), ExitStack() as dead:
        _lay_out(root)
        leftovers = list(find_leftovers(root / "staging"))
        for left in leftovers:
            dead.callback(left.close)
        staging = Staging.create(root / "staging", boot_id())
        stack.callback(staging.close)
        quarantine = Quarantine(root / "quarantine", max_bytes=quarantine_max_bytes, now=now)
        stack.callback(quarantine.close)
        index = Index.open(root / "index.sqlite3", root / "trees")
        stack.callback(index.close)
        records = Records(index, clock_ns=staging.clock_ns, now=now)
        seal = choose_seal(seal_mode, staging.fd, os.fspath(root))
        # In ext4 a file that is sealed before it has a name leaks if the power fails then.
        unnamed = _probe(root, staging) and not seal.state.active
        press = Press(
            root / "blobs",
            staging,
            quarantine,
            unnamed=unnamed,
            seal=seal,
            on_verified=records.note,
        )
        stack.callback(press.close)
        blobs = Blobs(press, records)
        manifests = Manifests(root / "manifests", staging, quarantine, durable=fsync == "batch")
        stack.callback(manifests.close)
        trees = Trees(root / "trees", blobs, staging)
        stack.callback(trees.close)
        receipts = Receipts(root / "receipts", staging, durable=fsync == "batch", host=node_name)
        stack.callback(receipts.close)
        reliance = Reliance(root / "locks")
        stack.callback(reliance.close)
        durable = fsync == "batch"
        repairs = Repairs(root / "repairs", trees, manifests, durable=durable)
        stack.callback(repairs.close)
        leases = Leases(root, now=now, kubelet_directory=kubelet_directory, durable=durable)
        orders = Orders(root / "orders", staging, durable=durable)
        stack.callback(orders.close)
        follows = Follows(root / "follows", staging, durable=durable)
        stack.callback(follows.close)
        cache = Cache(
            root,
            blobs=blobs,
            manifests=manifests,
            trees=trees,
            receipts=receipts,
            index=index,
            staging=staging,
            quarantine=quarantine,
            reliance=reliance,
            leases=leases,
            orders=orders,
            follows=follows,
            records=records,
            repairs=repairs,
            on_rehash=on_rehash,
            seal=seal.state,
            press_terms=PressTerms(
                root=os.fspath(root),
                staging=os.fspath(staging.path),
                quarantine_max_bytes=quarantine_max_bytes,
                unnamed=unnamed,
                seal_mode=seal.state.mode,
                sealed=seal.state.active,
            ),
            durable=durable,
            now=now,
        )
        cache.put_in_order(leftovers)
        stack.callback(_leave, cache)
        return cache


def _leave(cache: Cache) -> None:
    """Make everything durable and say so; if that fails the next one to open knows."""
    cache.trust.settle_all()
    cache.records.flush()
    try:
        cache.sync()
    except SnapsyncError:
        logger.warning("leaving the cache %s without knowing that it is durable", cache.root)
    else:
        cache.staging.remove()


def _lay_out(root: Path) -> None:
    """Make what is missing of the layout; the version file comes first and never later."""
    version = read_version(root)
    if version is None:
        _refuse_foreign(root)
        write_version(root, LAYOUT_VERSION)
    else:
        bring_up_to_date(root, version)
    for names, mode in ((_READABLE, 0o755), (_PRIVATE, 0o700)):
        for name in names:
            _make_directory(root / name, mode)
    if not (root / "blobs" / SHARDS[-1]).is_dir():
        for shard in SHARDS:
            _make_directory(root / "blobs" / shard, 0o755)
        fsops.fsync_directory(root / "blobs")
        fsops.fsync_directory(root)


def _refuse_foreign(root: Path) -> None:
    """Refuse to take over directories of our names that we did not make."""
    for name in (*_READABLE, *_PRIVATE):
        with suppress(FileNotFoundError):
            if any((root / name).iterdir()):
                raise CacheUnusable(
                    f"{root} holds {name!r} but no version file: not a cache of snapsync",
                    hint="Choose an empty or a new directory.",
                    directory=os.fspath(root),
                )


def _make_directory(path: Path, mode: int) -> None:
    """Make a directory with exactly that mode; one that exists is left as it is."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(mode)


def _probe(root: Path, staging: Staging) -> bool:
    """Tell whether unnamed files can be linked here; refuse a place without hard links."""
    if fsops.can_link_unnamed(staging.fd, "probe"):
        return True
    try:
        os.link("marker", "probe", src_dir_fd=staging.fd, dst_dir_fd=staging.fd)
    except OSError as exc:
        raise CacheUnusable(
            f"the file system of {root} has no hard links: {os.strerror(exc.errno or 0)}",
            hint="Put the cache on a local file system such as ext4, xfs or btrfs.",
            directory=os.fspath(root),
        ) from exc
    os.unlink("probe", dir_fd=staging.fd)
    return False
