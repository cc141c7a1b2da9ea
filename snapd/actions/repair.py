"""Fetch objects that were found damaged from their stores, and put the trees right that hold them.

Nothing is to be asked for: the damage is noted on the disk, and stays so until it is repaired.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import anyio
from anyio import from_thread, to_thread

from snapd.actions.gather import Gathering
from snapd.actions.pull import Workshop
from snapd.disk.repairs import Blob
from snapd.model.errors import SnapsyncError
from snapd.model.eviction import objects_in
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from snapd.model.plan import PullPlan, plan_pull

logger = logging.getLogger(__name__)

_URGENCY = 1
"""Blocking pulls go first."""


class Repairer:
    """Repairs one cache; one repair runs at a time.

    An object comes from the store of any snapshot that has it; if that is not known any more, from
    the stores that are allowed by name.
    """

    def __init__(self, workshop: Workshop, stores: Callable[[], Sequence[str]]) -> None:
        self._workshop = workshop
        self._stores = stores
        self._one_at_a_time = anyio.Lock()

    async def repair(self) -> int:
        """Repair what can be now; returns how many objects are right again.

        What can't be had stays noted, and its snapshots do not count as complete.
        """
        cache = self._workshop.cache
        if not await to_thread.run_sync(cache.repairs.pending):
            return 0
        async with self._one_at_a_time:
            for snapshot_id in await to_thread.run_sync(self._snapshots):
                await self._fetch_for(snapshot_id)
            mended = await to_thread.run_sync(cache.mender.mend)
        for (digest, mode), trees in mended.items():
            logger.warning("object %s (mode %o) is repaired, in %d trees", digest, mode, trees)
        self._workshop.observer.on_repaired(len(mended))
        return len(mended)

    def _snapshots(self) -> list[SnapshotId]:
        """List the snapshots that lack an object; blocking."""
        cache = self._workshop.cache
        missing = self._missing()
        held = (each for each in cache.trees.iterate())
        return [each for each in held if any(cache.repairs.holds(each, blob) for blob in missing)]

    def _missing(self) -> list[Blob]:
        """List the damaged objects that are not here; blocking."""
        cache = self._workshop.cache
        return [each for each in cache.repairs.pending() if cache.trust.prove(*each) is None]

    async def _fetch_for(self, snapshot_id: SnapshotId) -> None:
        """Fetch what a snapshot lacks, from the first store that has it."""
        cache = self._workshop.cache
        text = await to_thread.run_sync(cache.manifests.load, snapshot_id)
        if text is None:
            return
        objects = await to_thread.run_sync(objects_in, text)
        await to_thread.run_sync(cache.reliance.begin, objects)
        try:
            plan = await to_thread.run_sync(self._plan, snapshot_id, text)
            if plan.bytes_to_fetch or plan.small or plan.large or plan.derive:
                for uri in await to_thread.run_sync(self._candidates, snapshot_id):
                    if await self._fetch(plan, uri, snapshot_id):
                        break
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(cache.reliance.end, objects)

    def _plan(self, snapshot_id: SnapshotId, text: bytes) -> PullPlan:
        """Plan to fetch only the damaged objects of a snapshot; blocking."""
        manifest = Manifest.parse(text, expected_id=snapshot_id)
        damaged = set(self._missing())
        entries = map(manifest.__getitem__, manifest.distinct_objects())
        wanted = manifest.objects().only(
            {
                position: entry.checksum
                for position, entry in enumerate(entries)
                if (entry.checksum, entry.mode) in damaged
            }
        )
        held = self._workshop.cache.trust.check(manifest, wanted, from_thread.check_cancelled)
        threshold = self._workshop.fetcher.settings.large_object_bytes
        return plan_pull(manifest, wanted, held, large_object_bytes=threshold)

    def _candidates(self, snapshot_id: SnapshotId) -> list[str]:
        view = self._workshop.cache.index.find(snapshot_id)
        named = [each for each in self._stores() if each != "*"]
        own = [view.store] if view is not None and view.store else []
        return list(dict.fromkeys([*own, *named]))

    async def _fetch(self, plan: PullPlan, uri: str, snapshot_id: SnapshotId) -> bool:
        workshop = self._workshop
        try:
            async with workshop.stores.use(uri) as store:
                gathering = Gathering(
                    plan,
                    store,
                    workshop.fetcher,
                    workshop.blob_flights,
                    workshop.large_lanes,
                    urgency=lambda: _URGENCY,
                    crowded=lambda: True,
                )
                await gathering.run()
        except SnapsyncError as error:
            logger.warning("can't repair snapshot %s from %s: %s", snapshot_id, uri, error.message)
            return False
        return True
