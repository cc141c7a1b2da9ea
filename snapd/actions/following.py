"""All follows of a node: begun and ended as configuration and callers say, over restarts."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from snapd.actions.follow import Follow
from snapd.actions.live import Means, at_link, let_go
from snapd.actions.pulls import Pulls
from snapd.actions.watch import Watch, keys_behind, sight
from snapd.disk.cache import Cache
from snapd.model.access import Peer
from snapd.model.errors import (
    DestinationTaken,
    FollowNotFound,
    NotAllowed,
    QueueFull,
    SnapsyncError,
    UsageError,
)
from snapd.model.follow_records import FollowRecord
from snapd.model.follow_views import FollowView
from snapd.model.follows import (
    FOLLOWS_MAX,
    FOLLOWS_OF_A_USER_MAX,
    FollowRequest,
    clashing,
    complete,
    follow_id_of,
)
from snapd.model.references import parse_reference
from snapd.model.settings import Settings
from snapd.remote.stores import Stores

logger = logging.getLogger(__name__)

DEFECT_PAUSE_SECONDS = 60.0
"""After a defect in it a follow begins again so much later."""


@dataclass(slots=True)
class _Kept:
    """A running follow, with what ends it and what it is told by."""

    follow: Follow
    watch: Watch
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Following:
    """The follows of one node. Nothing is followed before `begin`."""

    def __init__(
        self,
        cache: Cache,
        pulls: Pulls,
        stores: Stores,
        tasks: TaskGroup,
        settings: Settings,
        *,
        now: Callable[[], float],
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._cache = cache
        self._stores = stores
        self._tasks = tasks
        self._settings = settings
        host = settings.cache.node_name or cache.receipts.host
        self._means = Means(cache, pulls, f"{host}:{cache.root}", now, dice)
        self._kept: dict[str, _Kept] = {}
        self._watches: dict[tuple[str, tuple[str, ...]], tuple[Watch, anyio.CancelScope]] = {}
        self._changing = anyio.Lock()
        self._changed = anyio.Event()

    def views(self) -> list[FollowView]:
        """Show how all of them stand, by destination."""
        return [self._kept[dest].follow.view() for dest in sorted(self._kept)]

    async def begin(self) -> None:
        """Go on with what was followed before, and with what the configuration says."""
        async with self._changing:
            records = await to_thread.run_sync(self._cache.follows.all)
            configured = {each.dest: each for each in self._settings.follows}
            for record in records.values():
                if record.asker is not None and record.follow.dest not in configured:
                    self._start(record, configured=False, is_new=record.live is None)
            await self._agree(records)
            await self._forget_strays()
        self._tasks.start_soon(self._keep_agreeing)

    def apply(self, settings: Settings) -> None:
        """Take over what the configuration says now; it is done soon afterwards."""
        self._settings = settings
        self._changed.set()

    async def _keep_agreeing(self) -> None:
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            try:
                async with self._changing:
                    await self._agree({})
                # What kept a store from being read may be what was changed.
                for watch, _ in self._watches.values():
                    watch.hurry()
            except SnapsyncError as error:
                logger.warning("can't follow as the configuration says: %s", error.message)

    async def _agree(self, records: dict[str, FollowRecord]) -> None:
        """Follow what the configuration says and no longer what it said before.

        It comes before callers: where both name a destination, the configuration's counts.
        """
        configured = {each.dest: each for each in self._settings.follows}
        for dest, kept in list(self._kept.items()):
            if kept.follow.configured and dest not in configured:
                await self._end(dest)
            elif not kept.follow.configured and clashing(dest, configured):
                logger.warning("the configuration follows at %s now, whoever asked before", dest)
                record = await self._stop(dest)
                if dest in configured:
                    records[dest] = record
                else:
                    await self._let_go(dest, record)
        for dest, follow in configured.items():
            known = self._kept.get(dest)
            if known is not None and known.follow.record.follow == follow:
                continue
            former = await self._stop(dest) if known is not None else records.get(dest)
            record = former or FollowRecord(follow)
            is_new = record.live is None or record.follow.ref != follow.ref
            record = replace(record, follow=follow, asker=None)
            self._start(record, configured=True, is_new=is_new)

    async def _forget_strays(self) -> None:
        """Let go of what former daemons followed and nobody follows any more."""
        records = await to_thread.run_sync(self._cache.follows.all)
        held = await to_thread.run_sync(self._cache.leases.followed)
        for dest in (records.keys() | held) - self._kept.keys():
            logger.info("%s is not followed any more", dest)
            await self._let_go(dest, records.get(dest))

    async def add(self, request: FollowRequest, asker: Peer, *, may_hook: bool) -> FollowView:
        """Follow for a caller, from now on and over restarts; the same once more is fine.

        The directory has to exist, and the caller has to be able to write to it. Raises
        `DestinationTaken`, `DestinationMissing`, `AccessDenied`, `NotAllowed` for a hook,
        `QueueFull`, `StoreNotAllowed`, and unless it may wait what keeps the reference from
        leading somewhere.
        """
        follow = complete(request.follow, self._settings.daemon.stores)
        if follow.hook and not may_hook:
            raise NotAllowed(
                f"user {asker.uid} may not set a hook, which runs as the daemon's user",
                hint="A hook takes the user of the daemon or root, or its configuration.",
            )
        self._stores.check(follow.store)
        if not request.wait:
            async with self._stores.use(follow.store) as store:
                await sight(store, parse_reference(follow.ref))
        record = FollowRecord(follow, asker)
        async with self._changing:
            if (same := self._kept.get(follow.dest)) is not None:
                if same.follow.configured or same.follow.record.follow != follow:
                    raise self._taken(follow.dest, follow.dest)
                return same.follow.view()
            if clash := clashing(follow.dest, self._kept):
                raise self._taken(follow.dest, clash)
            self._check_number(asker)
            await at_link(self._means, record, lambda link: link.claim(), make=False)
            await to_thread.run_sync(self._cache.follows.keep, record)
            return self._start(record, configured=False, is_new=True).view()

    async def remove(self, follow_id: str, *, by_uid: int | None = None) -> FollowView:
        """End a follow that a caller asked for; its link stays, and holds its tree.

        With `by_uid` only that user's own. Raises `FollowNotFound`, `NotAllowed`, and `UsageError`
        for one of the configuration.
        """
        async with self._changing:
            dest = next((each for each in self._kept if follow_id_of(each) == follow_id), "")
            if not dest:
                raise FollowNotFound(f"nothing is followed as {follow_id[:40]!r}")
            kept = self._kept[dest]
            if kept.follow.configured:
                raise UsageError(
                    f"the configuration follows at {dest}",
                    hint="Take its [[follow]] out of the file and let the daemon reload it.",
                )
            asker = kept.follow.record.asker
            if by_uid is not None and (asker is None or asker.uid != by_uid):
                raise NotAllowed(
                    f"the follow at {dest} is not one of user {by_uid}",
                    hint="Whoever asked for it ends it, or an administrator of the daemon.",
                )
            view = kept.follow.view()
            await self._end(dest)
            return view

    def _check_number(self, asker: Peer) -> None:
        askers = [each.follow.record.asker for each in self._kept.values()]
        theirs = sum(each is not None and each.uid == asker.uid for each in askers)
        if len(self._kept) >= FOLLOWS_MAX or theirs >= FOLLOWS_OF_A_USER_MAX:
            raise QueueFull(
                f"{len(self._kept)} references are followed already, {theirs} of them for user"
                f" {asker.uid}",
                hint=f"At most {FOLLOWS_MAX}, {FOLLOWS_OF_A_USER_MAX} of one user: `snapctl follow"
                " stop DEST`.",
            )

    @staticmethod
    def _taken(dest: str, other: str) -> DestinationTaken:
        return DestinationTaken(
            f"something else is followed at {other}"
            + ("" if dest == other else f", which is in {dest} or around it"),
            hint="`snapctl follow status` tells what; `snapctl follow stop DEST` ends it.",
            destination=dest,
        )

    def _start(self, record: FollowRecord, *, configured: bool, is_new: bool) -> Follow:
        follow = Follow(record, self._means, configured=configured, is_new=is_new)
        store, keys = record.follow.store, keys_behind(follow.reference)
        found = self._watches.get((store, keys))
        if found is None:
            watch = Watch(store, keys, self._stores, random=self._means.random)
            scope = anyio.CancelScope()
            self._watches[store, keys] = (watch, scope)
            watch.join(follow)
            self._tasks.start_soon(self._watch, watch, scope)
        else:
            watch = found[0]
            watch.join(follow)
        kept = self._kept[record.follow.dest] = _Kept(follow, watch)
        self._tasks.start_soon(self._run, kept)
        return follow

    @staticmethod
    async def _watch(watch: Watch, scope: anyio.CancelScope) -> None:
        with scope:
            await watch.run()

    @staticmethod
    async def _run(kept: _Kept) -> None:
        """Run one follow until it is stopped; a defect in it harms no other."""
        try:
            with kept.scope:
                while True:
                    try:
                        await kept.follow.run()
                    except Exception:
                        logger.exception("the follow of %s met a defect", kept.follow.reference)
                    await anyio.sleep(DEFECT_PAUSE_SECONDS)
        finally:
            kept.ended.set()

    async def _stop(self, dest: str) -> FollowRecord:
        """Stop working on a follow, and give what is known of it."""
        kept = self._kept.pop(dest)
        kept.watch.followers.remove(kept.follow)
        if not kept.watch.followers:
            _, scope = self._watches.pop((kept.watch.store, kept.watch.keys))
            scope.cancel()
        kept.scope.cancel()
        await kept.ended.wait()
        return kept.follow.record

    async def _end(self, dest: str) -> None:
        await self._let_go(dest, await self._stop(dest))

    async def _let_go(self, dest: str, record: FollowRecord | None) -> None:
        """End a follow for good, a lost record too: the link stays as it is and holds its tree."""
        if record is not None:
            with suppress(SnapsyncError):
                await at_link(self._means, record, lambda link: link.release(), make=False)
        try:
            await to_thread.run_sync(let_go, self._cache, dest)
        except SnapsyncError as error:
            # The next daemon finds what is left of it and tries again.
            logger.warning("the follow of %s is not let go: %s", dest, error.message)
