"""SIGKILL of a daemon at every step of a switch, and what readers and the next daemon find."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from snapd.disk.live_link import MARK
from snapd.model.errors import SnapsyncError
from snapd.model.follow_views import FollowView
from tests.caching import assert_tree
from tests.crash.living import PATIENCE_SECONDS, Doom, Living, doomed, starting, steps_in
from tests.e2e.following import QuickModels, sample_of
from tests.e2e.installed import Host
from tests.samples import Sample

PARTS = 3
OF_FOLLOWING = ("follow", "live_link")
"""Steps are told by the functions that led to them; those of these modules are a switch's own."""


class World:
    """A store with a model whose versions are promoted one after the other, and a node."""

    def __init__(self, root: Path) -> None:
        self.host = Host(root / "host")
        self.host.environment()
        self.models = QuickModels(self.host, f"file://{root}/store", root)
        self.dest = root / "srv" / "iris"
        self.dest.parent.mkdir()
        self.told = root / "told"
        self.samples: list[Sample] = []
        self.config = (
            f'[transfer]\nworkers = 0\n[[follow]]\nref = "iris@production"\ndest = "{self.dest}"\n'
            f'store = "{self.models.store}"\npoll_seconds = 1\n'
            f'hook = ["/bin/sh", "-c", "echo $SNAPSYNC_VERSION >>{self.told}"]\n'
        )

    @property
    def version(self) -> str:
        return f"v{len(self.samples)}.0.0"

    def promote_another(self) -> None:
        self.samples.append(sample_of(f"v{len(self.samples) + 1}.0.0"))
        self.models.add(self.version, "iris")
        self.models.promote(self.version, "iris")

    def live(self) -> Sample:
        """Read as a reader would: the link leads to one whole tree at any time."""
        tree = Path(os.readlink(self.dest / "current"))
        [found] = [each for each in self.samples if each.id == tree.name]
        assert_tree(tree, found.manifest)
        return found

    def one_life(self, command: list[str]) -> int:
        """Let a daemon live until the latest version is live and told of, or it dies."""
        with starting(self.host, self.config, command) as living:
            self._until_done(living)
            if living.process.poll() is None:
                living.process.terminate()
            return living.wait()

    def _until_done(self, living: Living) -> FollowView | None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while living.process.poll() is None:
            with suppress(SnapsyncError):
                [view] = living.client.follows()
                told = self.told.exists() and self.version in self.told.read_text().split()
                if view.version == self.version and told and not view.hook_running:
                    return view
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return None

    def next_life(self) -> None:
        with starting(self.host, self.config) as living:
            assert living.process.poll() is None, (self.host.root / "snapd.log").read_text()
            view = self._until_done(living)
            assert view is not None
            assert self.live() is self.samples[-1]
            assert sorted(os.listdir(self.dest)) == [MARK, "current"]
            assert [each.version for each in view.previous] == [f"v{len(self.samples) - 1}.0.0"]
            held = {x.snapshot_id for x in living.client.leases() if x.kind == "follow"}
            assert held == {each.id for each in self.samples[-2:]}


@pytest.fixture
def world(quick_path: Path) -> World:
    return World(quick_path)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_daemon_killed_at_every_step_of_a_switch(world: World, part: int) -> None:
    world.promote_another()
    note = world.host.root / "steps"
    assert world.one_life(doomed("snapd", note=str(note))) == 0
    first = steps_in(note)
    note.unlink()
    world.promote_another()
    assert world.one_life(doomed("snapd", note=str(note))) == 0
    steps = {
        step: times
        for step, times in steps_in(note).items()
        if any(word in step for word in OF_FOLLOWING)
    }
    assert len(steps) >= 8, steps
    assert len(first) >= 8
    killed = 0
    mine = sorted(steps)[part::PARTS]
    for step in mine:
        # The time in the middle is that of the switch: the first may be the start's own.
        time_of_step = steps[step] // 2 + 1
        world.promote_another()
        before = world.live()
        code = world.one_life(doomed("snapd", doom=Doom(step, time_of_step)))
        assert code in (0, -signal.SIGKILL), step
        killed += code != 0
        assert world.live() in (before, world.samples[-1])
        world.next_life()
    assert killed >= 0.7 * len(mine) - 1
    shutil.rmtree(world.host.cache)
