"""Keep one reference live at one directory: pull ahead, switch, tell the hook.

The order of a switch, whatever kills the daemon in between: what is coming is written down and
held; it is pulled and verified; the link is changed; what is live now is written down; what is not
needed any more is let go; the hook runs. What the link says counts: the next daemon reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread

from snapd.actions.hook import Hook
from snapd.actions.live import Means, at_link, is_sound
from snapd.disk.live_link import LiveLink
from snapd.model.errors import (
    ActionFailed,
    DaemonStopping,
    InternalError,
    RegistryUnreadable,
    SnapsyncError,
)
from snapd.model.follow_records import FollowRecord
from snapd.model.follow_views import FollowState, FollowView
from snapd.model.follows import LINK, follow_id_of, pause_seconds
from snapd.model.ids import SnapshotId
from snapd.model.jobs import PullRequest
from snapd.model.references import parse_reference
from snapd.model.releases import Change, Release, Sighting, changed_since

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Follow:
    """One follow; `told` from outside, `run` by its keeper until that cancels it."""

    def __init__(
        self, record: FollowRecord, means: Means, *, configured: bool, is_new: bool
    ) -> None:
        self.record = record
        self.configured = configured
        self.reference = parse_reference(record.follow.ref)
        self._means = means
        self._target: Sighting | None = None
        self._leads_nowhere = False
        self._behind_since = 0.0
        self._began_at = means.now()
        self._checked_at: float | None = None
        # Before anybody asked for it a node was not behind, however old what it leads to is.
        self._unchanged_at = self._began_at if is_new else None
        self._poll_error: SnapsyncError | None = None
        self._step_error: SnapsyncError | None = None
        self._last_error: tuple[SnapsyncError, float] | None = None
        self._news = anyio.Event()
        self._retargeted = anyio.Event()
        self._pulling: anyio.CancelScope | None = None
        self._job_id = ""
        self._unsaved = True
        self._saving = anyio.Lock()
        self._hook = Hook(means.now)
        self._hook_wanted = anyio.Event()
        self._polls = self._poll_failures = self._switches = 0

    @property
    def dest(self) -> str:
        """The directory that is this follow's own."""
        return self.record.follow.dest

    @property
    def poll_seconds(self) -> float:
        """How often it wants to be told where its reference leads."""
        return self.record.follow.poll_seconds

    def told(self, outcome: Sighting | SnapsyncError, *, polled: bool) -> None:
        """Take note of where the reference leads, or why that is not known; see `Follower`."""
        self._polls += 1
        now = self._means.now()
        if polled:
            self._checked_at = now
        if isinstance(outcome, SnapsyncError):
            self._poll_failures += not polled
            self._poll_error = self._noted(outcome, self._poll_error)
            if polled and not isinstance(outcome, RegistryUnreadable):
                self._lose_aim()
        else:
            self._poll_error = None
            self._aim(outcome, now)
        self._news.set()

    def _lose_aim(self) -> None:
        """Take note that the reference leads nowhere: what was to be live may have been withdrawn.

        A pull of it ends, and it is not switched to.
        """
        self._leads_nowhere = True
        if self._target is not None:
            self._target = None
            self._turn()

    def _turn(self) -> None:
        self._step_error = None
        self._retargeted.set()
        if self._pulling is not None:
            self._pulling.cancel()

    def _aim(self, sighting: Sighting, now: float) -> None:
        before, self._target = self._target, sighting
        self._leads_nowhere = False
        wanted = sighting.resolved.snapshot_id
        if before is None or before.resolved.snapshot_id != wanted:
            self._behind_since = changed_since(sighting.change, self._unchanged_at, now)
            self._turn()
        self._unchanged_at = now

    def _noted(self, error: SnapsyncError, before: SnapsyncError | None) -> SnapsyncError:
        self._last_error = (error, self._means.now())
        if before is None or (before.code, before.message) != (error.code, error.message):
            logger.warning(
                "following %s at %s: %s",
                self.reference,
                self.dest,
                error.message,
                extra={"code": error.code},
            )
        return error

    async def run(self) -> None:
        """Keep the link right for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_hooking)
            await self._keep_live()

    async def _keep_live(self) -> None:
        failures = 0
        while True:
            self._news = anyio.Event()
            self._retargeted = anyio.Event()
            try:
                await self._step()
            except DaemonStopping:
                await anyio.sleep_forever()
            except SnapsyncError as error:
                noted = self._noted(error, self._step_error)
                if self._retargeted.is_set():
                    # It was about something that is not wanted any more.
                    failures = 0
                    continue
                self._step_error = noted
            except Exception as defect:
                logger.exception("following %s met a defect", self.reference)
                self._step_error = InternalError(f"{type(defect).__name__}: {defect}")
            else:
                self._step_error, failures = None, 0
                await self._news.wait()
                continue
            failures += 1
            pause = pause_seconds(self.poll_seconds, failures - 1, self._means.random)
            with anyio.move_on_after(pause):
                await self._retargeted.wait()

    async def _step(self) -> None:
        """Look how the link is, and bring it where the reference leads."""
        linked = await self._at_link(self._look_at_link)
        now = self._means.now()
        if self.record.recovered(linked, now) != self.record or self._unsaved:
            await self._keep(lambda record: record.recovered(linked, now))
        target = self._target
        if target is None:
            if self._leads_nowhere and self.record.coming is not None:
                await self._keep(lambda record: replace(record, coming=None))
            return
        wanted = Release.of(target)
        live = self.record.live
        if live is None or live.snapshot_id != wanted.snapshot_id:
            await self._go_live(wanted)
        elif (live.name, live.version) != (wanted.name, wanted.version):
            # Another name for the same bytes: nothing to switch.
            named = replace(live, name=wanted.name, version=wanted.version)
            await self._keep(lambda record: replace(record, live=named, coming=None))
        elif self.record.coming is not None:
            await self._keep(lambda record: replace(record, coming=None))

    def _is_at(self, target: Sighting | None) -> bool:
        live = self.record.live
        return bool(live and target and live.snapshot_id == target.resolved.snapshot_id)

    def _look_at_link(self, link: LiveLink) -> SnapshotId | None:
        """Take the directory over; tell what is live in it, None if nothing is.

        A link that got lost is made again, if what was live is still here.
        """
        link.claim()
        cache, live = self._means.cache, self.record.live
        if (found := link.tree()) is not None:
            tree, linked = found
            if tree == str(cache.trees.path(linked)) and cache.trees.has(linked):
                return linked
        if live is None or not cache.trees.has(live.snapshot_id):
            return None
        logger.warning("the link %s/%s was lost or bent, and is made again", self.dest, LINK)
        link.switch(cache.trees.path(live.snapshot_id))
        return live.snapshot_id

    async def _go_live(self, release: Release) -> None:
        await self._keep(lambda record: record.heading_for(release))
        with anyio.CancelScope() as scope:
            self._pulling = scope
            try:
                await self._obtain(release.snapshot_id)
            finally:
                self._pulling, self._job_id = None, ""
        if scope.cancel_called:
            return
        with anyio.CancelScope(shield=True):
            await self._switch(release)

    async def _obtain(self, snapshot_id: SnapshotId) -> None:
        """Have the snapshot verified on this node; raises what its pull raises."""
        if await self._pull(snapshot_id) or await self._is_sound(snapshot_id):
            return
        # What was damaged here is in the quarantine now: this pull fetches it.
        await self._pull(snapshot_id)
        if not await self._is_sound(snapshot_id):
            raise ActionFailed(f"{snapshot_id} was damaged in the cache again and again")

    async def _pull(self, snapshot_id: SnapshotId) -> bool:
        """Pull; True if objects had to be fetched, which were hashed on their way."""
        request = PullRequest(snapshot_id, self.record.follow.store)
        job = await self._means.pulls.start(request)
        self._job_id = job.job_id
        async with job.attached():
            return (await job.wait()).objects_fetched > 0

    async def _is_sound(self, snapshot_id: SnapshotId) -> bool:
        return await self._in_thread(is_sound, self._means.cache, snapshot_id)

    async def _switch(self, release: Release) -> None:
        before, cache, now = self.record, self._means.cache, self._means.now
        tree = cache.trees.path(release.snapshot_id)

        def switch(link: LiveLink) -> None:
            # The pull may have taken hours: what is there now may be another directory.
            link.claim()
            link.switch(tree)

        await self._at_link(switch)
        self._switches += 1
        # Whoever got the path of the former one reads on for as long as any path is good for.
        for former in (before.live, *before.previous):
            if former is not None:
                await self._in_thread(cache.index.touch, former.snapshot_id, now())
        await self._keep(lambda record: record.switched(now()))
        self._tell_of(release, before.live)

    def _tell_of(self, release: Release, before: Release | None) -> None:
        change = self._target.change if self._target else Change(0.0)
        logger.info(
            "%s at %s is %s now",
            self.reference,
            self.dest,
            release.version or release.snapshot_id,
            extra={
                "snapshot_id": release.snapshot_id,
                "former": before.version if before else "",
                "action": change.action,
                "by": change.by,
                "note": change.note,
            },
        )

    async def _keep(self, change: Callable[[FollowRecord], FollowRecord]) -> None:
        """Take note of how the follow stands: what may not go is held before others are let go."""
        async with self._saving:
            record = change(self.record)
            self.record, self._unsaved = record, True
            cache = self._means.cache
            await self._in_thread(cache.follows.keep, record)
            await self._in_thread(cache.leases.hold_for_follow, self.dest, record.held())
            self._unsaved = False
        if record.hook_due:
            self._hook_wanted.set()

    async def _keep_hooking(self) -> None:
        """Run the hook after each switch; of those during a run it is told of the last only."""
        while True:
            await self._hook_wanted.wait()
            self._hook_wanted = anyio.Event()
            record = self.record
            if record.live is None or not record.hook_due:
                continue
            if failure := await self._hook.run(record):
                self._last_error = (failure, self._means.now())
            try:
                await self._keep(partial(FollowRecord.told, live=record.live))
            except SnapsyncError as error:
                self._last_error = (error, self._means.now())

    async def _at_link(self, act: Callable[[LiveLink], T]) -> T:
        """Do something in the directory of the follow, in a thread."""
        return await at_link(self._means, self.record, act, make=self.configured)

    @staticmethod
    async def _in_thread(act: Callable[..., T], *arguments: object) -> T:
        return await to_thread.run_sync(partial(act, *arguments))

    @property
    def state(self) -> FollowState:
        """Say in a word how it stands."""
        if self._pulling is not None:
            return "pulling"
        if self.record.live is None:
            return "starting" if self._polls == 0 else "absent"
        if self._target is None:
            return "starting" if self._polls == 0 else "live"
        return "live" if self._is_at(self._target) else "behind"

    def view(self) -> FollowView:
        """Show how it stands now."""
        record, target, live = self.record, self._target, self.record.live
        asker, error = record.asker, self._poll_error or self._step_error
        is_behind = target is not None and not self._is_at(target)
        behind_seconds = self._means.now() - self._behind_since if is_behind else 0.0
        last_error, last_error_at = self._last_error or (None, None)
        return FollowView(
            follow_id=follow_id_of(self.dest),
            reference=str(self.reference),
            store=record.follow.store,
            dest=self.dest,
            link=f"{self.dest}/{LINK}",
            configured=self.configured,
            state=self.state,
            uid=asker.uid if asker else None,
            name=live.name if live else "",
            version=live.version if live else "",
            snapshot_id=live.snapshot_id if live else "",
            live_since=live.since if live else None,
            target_version=target.resolved.version if target else "",
            target_snapshot_id=target.resolved.snapshot_id if target else "",
            behind_seconds=max(0.0, behind_seconds),
            change=target.change if target else None,
            previous=record.previous,
            poll_seconds=self.poll_seconds,
            began_at=self._began_at,
            checked_at=self._checked_at,
            error=error.to_json() if error else None,
            last_error=last_error.to_json() if last_error else None,
            last_error_at=last_error_at,
            job_id=self._job_id,
            switches=self._switches,
            polls=self._polls,
            poll_failures=self._poll_failures,
            has_hook=bool(record.follow.hook),
            hook_running=self._hook.runs or record.hook_due,
            hook_failures=self._hook.failures,
            hook=self._hook.result,
        )
