"""Whatever a node lives through, what it shows is what it has: a machine against a model.

The model knows which snapshots must be there, what holds them, and which bytes somebody spoiled
behind the node's back. The disk is the judge: after each step every tree and every blob is read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from blake3 import blake3
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from snapd.actions.jobs import Job
from snapd.disk import cache as cache_module
from snapd.model.errors import (
    DigestMismatch,
    JobCancelled,
    SnapshotInUse,
    SnapshotNotFound,
)
from snapd.model.ids import Digest, SnapshotId, digest_of
from snapd.model.jobs import JobView, PullRequest
from snapd.model.layout import object_key
from snapd.model.leases import LeaseRequest
from snapd.model.settings import CacheSettings, DaemonSettings, ScrubSettings, Settings
from snapd.node import Node, open_node
from snapd.remote.memory import Fault, MemoryStore, Stall
from snapd.runtime.observer import SilentObserver
from tests.caching import assert_tree
from tests.samples import Sample, sample

STORE = "memory://store"
SETTINGS = Settings(
    daemon=DaemonSettings(stores=(STORE,)),
    cache=CacheSettings(min_free_bytes=0, lease_seconds=0.001, orphan_seconds=0.0),
    scrub=ScrubSettings(bytes_per_second=1 << 40),
)
SAMPLES = (
    sample({"a": b"1" * 50, "b": b"2" * 50, "common": b"c" * 50}),
    sample({"x/a": b"1" * 50, "common": b"c" * 50, "own": b"3" * 50}, modes={"x/": 0o555}),
    sample({"common": b"c" * 50, "closed": b"4" * 50, "empty": b""}, modes={"common": 0o600}),
    sample({"alone": b"5" * 50}, modes={"": 0o555}),
)
PATIENCE_SECONDS = 60.0
samples = st.sampled_from(SAMPLES)


def opened(
    root: Path, store: MemoryStore, now: Callable[[], float]
) -> AbstractAsyncContextManager[Node]:
    """Open a node on a store in memory."""
    return open_node(
        SETTINGS,
        cache_directory=root,
        observer=SilentObserver(),
        now=now,
        opener=lambda _uri: nullcontext(store),
    )


@dataclass
class Running:
    """A pull that hangs on one object, and who waits for it."""

    made: Sample
    job: Job
    digest: Digest
    stall: Stall
    callers: list[Future[JobView]] = field(default_factory=list)


class NodeMachine(RuleBasedStateMachine):
    """Uses, spoils and kills one node."""

    def __init__(self) -> None:
        super().__init__()
        in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix="snapsync-machine-", dir=in_memory))
        self.root = self.directory / "cache"
        self.clock = 1000.0
        self.boots = 0
        self.store = MemoryStore(STORE)
        self.complete: set[SnapshotId] = set()
        self.perhaps: set[SnapshotId] = set()
        self.pins: dict[SnapshotId, str] = {}
        self.spoiled: set[int] = set()
        self.broken: set[Digest] = set()
        self.running: Running | None = None
        self.portal_manager = start_blocking_portal("asyncio")
        self.portal = self.portal_manager.__enter__()
        try:
            self.open()
        except BaseException:
            self.portal_manager.__exit__(None, None, None)
            raise

    @initialize()
    def fill_the_store(self) -> None:
        for made in SAMPLES:
            self.store.objects.update(made.keys())

    def now(self) -> float:
        self.clock += 1.0
        return self.clock

    def open(self) -> None:
        leave, self.killed = cache_module._leave, False
        with pytest.MonkeyPatch.context() as patch:
            # What a killed process does not do: say that everything is in order.
            patch.setattr(
                cache_module, "_leave", lambda cache: None if self.killed else leave(cache)
            )
            patch.setattr(cache_module, "boot_id", lambda: f"boot {self.boots}")
            self.manager = self.portal.wrap_async_context_manager(
                opened(self.root, self.store, self.now)
            )
            self.node = self.manager.__enter__()

    def teardown(self) -> None:
        self.end_of_callers()
        self.manager.__exit__(None, None, None)
        staged = os.listdir(self.root / "staging")
        self.portal_manager.__exit__(None, None, None)
        shutil.rmtree(self.directory)
        assert staged == []

    # What the disk says.

    def listed(self) -> set[SnapshotId]:
        views = self.portal.call(self.node.snapshots)
        return {SnapshotId(view.snapshot_id) for view in views}

    def right_blobs(self) -> set[Path]:
        """Find the blobs whose bytes are what their names say; all others were spoiled by us."""
        right = set()
        for path in self.root.glob("blobs/*/*"):
            if blake3(path.read_bytes()).hexdigest() == path.name.partition(".")[0]:
                right.add(path)
            else:
                assert path.stat().st_ino in self.spoiled, f"{path} is wrong"
        return right

    def right_digests(self) -> set[Digest]:
        return {Digest(path.name.partition(".")[0]) for path in self.right_blobs()}

    def is_spoiled(self, made: Sample) -> bool:
        tree = self.root / "trees" / made.id
        return any(path.lstat().st_ino in self.spoiled for path in tree.rglob("*"))

    @invariant()
    def what_is_shown_is_whole(self) -> None:
        listed = self.listed()
        pending = set(self.node.cache.repairs.pending())
        for made in SAMPLES:
            holds_damage = any((entry.checksum, entry.mode) in pending for entry in made.manifest)
            if made.id in listed:
                shown = self.complete | self.perhaps
                assert made.id in shown, "nothing is shown that was not pulled"
                assert not holds_damage, "known damage is not shown"
                if not self.is_spoiled(made):
                    assert_tree(self.root / "trees" / made.id, made.manifest)
            elif made.id in self.complete:
                assert holds_damage, "what was pulled stays until it is evicted"
        self.right_blobs()

    @invariant()
    def nothing_half_done_is_left(self) -> None:
        if self.running is None:
            staging = self.root / "staging"
            (own,) = os.listdir(staging)
            assert os.listdir(staging / own) == ["marker"]

    # Pulling.

    def blocked(self, made: Sample) -> bool:
        return self.running is not None and self.running.digest in made.objects

    async def waiting(self, made: Sample) -> JobView:
        job = await self.node.pulls.start(PullRequest(made.id, STORE))
        async with job.attached():
            with anyio.fail_after(PATIENCE_SECONDS):
                return await job.wait()

    @rule(made=samples)
    def pull(self, made: Sample) -> None:
        if self.blocked(made):
            return
        warm = made.id in self.listed()
        right = self.right_digests()
        needed = {digest for digest in made.objects if digest not in right}
        before = Counter(self.store.requests)
        try:
            view = self.portal.call(self.waiting, made)
        except DigestMismatch:
            assert not warm
            assert needed & self.broken
            assert made.id not in self.listed()
            self.complete.discard(made.id)
            return
        fetched = Counter(self.store.requests) - before
        if warm:
            assert not fetched
            return
        self.complete.add(made.id)
        assert not needed & self.broken
        assert_tree(Path(view.tree), made.manifest)
        again = {digest_of(body) for body in made.objects.values()}
        gets = {digest: fetched["get", object_key(digest)] for digest in again}
        assert all(gets[digest] == 1 for digest in needed)
        assert all(count <= 1 for count in gets.values())
        if not self.spoiled:
            assert sum(gets.values()) == len(needed)

    @precondition(lambda self: self.running is None)
    @rule(made=samples)
    def begin_a_pull_that_hangs(self, made: Sample) -> None:
        right = self.right_digests()
        missing = sorted(set(made.objects) - right - self.broken)
        if made.id in self.listed() or not missing or set(made.objects) & self.broken - right:
            return
        stall = self.portal.call(Stall)
        key = object_key(missing[0])
        self.store.faults.plan = [Fault("get", key, stall=stall)]
        caller = self.portal.start_task_soon(self.waiting, made)
        self.portal.call(self.reached, stall)
        # What else is missing arrives meanwhile; which of it did must not be a matter of luck.
        others = set(missing[1:])
        self.portal.call(self.until, lambda: others <= self.right_digests())
        (job,) = self.node.pulls._running.values()
        self.running = Running(made, job, missing[0], stall, [caller])

    async def reached(self, stall: Stall) -> None:
        with anyio.fail_after(PATIENCE_SECONDS):
            await stall.reached.wait()

    @precondition(lambda self: self.running is not None)
    @rule()
    def attach(self) -> None:
        assert self.running is not None
        waiters = self.running.job.view().waiters
        self.running.callers.append(self.portal.start_task_soon(self.waiting, self.running.made))
        self.portal.call(self.until, lambda: self.waiters() == waiters + 1)
        assert len(self.node.pulls._running) == 1

    def waiters(self) -> int:
        return 0 if self.running is None else self.running.job.view().waiters

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE_SECONDS):
            while not holds():
                await anyio.lowlevel.checkpoint()

    @precondition(lambda self: self.running is not None)
    @rule()
    def one_caller_leaves(self) -> None:
        assert self.running is not None
        waiters = self.running.job.view().waiters
        self.running.callers.pop().cancel()
        if self.running.callers:
            self.portal.call(self.until, lambda: self.waiters() == waiters - 1)
            assert not self.running.job.view().ended
        else:
            self.portal.call(self.running.job.flight.ended.wait)
            assert self.running.job.view().state == "cancelled"
            self.end_of_callers()

    @precondition(lambda self: self.running is not None)
    @rule()
    def cancel(self) -> None:
        assert self.running is not None
        self.portal.call(self.node.pulls.cancel, self.running.job.job_id)
        for caller in self.running.callers:
            with pytest.raises(JobCancelled):
                caller.result(PATIENCE_SECONDS)
        self.end_of_callers()

    @precondition(lambda self: self.running is not None)
    @rule()
    def let_the_pull_go_on(self) -> None:
        assert self.running is not None
        self.portal.call(self.running.stall.release)
        made, ended = self.running.made, []
        for caller in self.running.callers:
            try:
                ended.append(caller.result(PATIENCE_SECONDS))
            except DigestMismatch:
                assert self.broken & set(made.objects)
        self.end_of_callers()
        if ended:
            self.complete.add(made.id)
            if not self.is_spoiled(made):
                assert_tree(Path(ended[0].tree), made.manifest)

    def end_of_callers(self) -> None:
        if self.running is None:
            return
        for caller in self.running.callers:
            caller.cancel()
        self.portal.call(self.running.stall.release)
        self.portal.call(self.running.job.flight.ended.wait)
        self.store.faults.plan = []
        self.running = None

    # Holding and evicting.

    @rule(made=samples)
    def pin(self, made: Sample) -> None:
        request = LeaseRequest(made.id, "pin", reason="machine")
        if made.id not in self.complete:
            return
        with suppress(SnapshotNotFound):
            lease = self.node.cache.leases.add(request)
            self.pins[made.id] = lease.lease_id

    @rule(made=samples)
    def unpin(self, made: Sample) -> None:
        if made.id in self.pins:
            self.node.cache.leases.remove(self.pins.pop(made.id))

    @rule(made=samples)
    def evict(self, made: Sample) -> None:
        there = (self.root / "trees" / made.id).exists()

        async def evict() -> None:
            await self.node.evict(made.id, given_out_too=True)

        try:
            self.portal.call(evict)
        except SnapshotNotFound:
            assert made.id not in self.listed()
            return
        except SnapshotInUse:
            assert made.id in self.pins
            return
        assert there
        assert made.id not in self.pins, "what is pinned is not evicted"
        self.complete.discard(made.id)
        self.perhaps.discard(made.id)
        assert not (self.root / "trees" / made.id).exists()

    # Spoiling, killing, repairing.

    @rule(number=st.integers(0, 30), everywhere=st.booleans())
    def spoil_a_blob(self, number: int, everywhere: bool) -> None:
        """Change a byte through a hard link, and give the file its former time back."""
        paths = sorted(path for path in self.right_blobs() if path.stat().st_size)
        if not paths:
            return
        path = paths[number % len(paths)]
        before = path.stat()
        with path.open("r+b") as file:
            file.write(b"#")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.spoiled.add(before.st_ino)
        if everywhere:
            self.break_object(Digest(path.name.partition(".")[0]), gone=False)

    @rule(made=samples, gone=st.booleans())
    def break_the_store(self, made: Sample, gone: bool) -> None:
        self.break_object(max(made.objects), gone=gone)

    def break_object(self, digest: Digest, *, gone: bool) -> None:
        if self.running is not None and self.running.digest == digest:
            return
        self.broken.add(digest)
        if gone:
            self.store.objects.pop(object_key(digest), None)
        else:
            self.store.objects[object_key(digest)] = b"not what it should be"

    @rule()
    def mend_the_store(self) -> None:
        self.fill_the_store()
        self.broken.clear()

    @precondition(lambda self: self.running is None)
    @rule()
    def scrub(self) -> None:
        self.portal.call(self.node.scrub._run_round)
        self.portal.call(self.node.repairer.repair)
        assert set(self.root.glob("blobs/*/*")) == self.right_blobs()
        if not self.broken:
            listed = self.listed()
            assert self.complete <= listed <= self.complete | self.perhaps
            for made in SAMPLES:
                if made.id in listed:
                    assert_tree(self.root / "trees" / made.id, made.manifest)

    @rule()
    def restart(self) -> None:
        self.end_of_callers()
        self.manager.__exit__(None, None, None)
        assert os.listdir(self.root / "staging") == []
        self.open()

    @rule()
    def crash(self) -> None:
        self.end_without_order()
        self.open()

    @rule(number=st.integers(0, 30))
    def lose_power(self, number: int) -> None:
        """The machine goes down, and what was written last did not reach the disk whole."""
        self.end_without_order()
        torn = sorted(self.right_blobs())[number : number + 1]
        for path in torn:
            self.spoiled.add(path.stat().st_ino)
            os.truncate(path, 0)
        self.boots += 1
        self.open()
        # An empty object torn to nothing is as it was.
        assert not [path for path in torn if path.exists() and path not in self.right_blobs()]
        for made in SAMPLES:
            if made.id in self.complete and made.id not in self.listed():
                # Whether its tree is repaired or laid out anew depends on when damage was found.
                self.complete.discard(made.id)
                self.perhaps.add(made.id)

    def end_without_order(self) -> None:
        self.end_of_callers()
        self.killed = True
        self.manager.__exit__(None, None, None)
        assert os.listdir(self.root / "staging") != []


def test_a_node_shows_what_it_has() -> None:
    run_state_machine_as_test(
        NodeMachine,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            # Shrinking would take minutes; a run has few steps as it is.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
