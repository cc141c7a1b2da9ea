from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from snapd.actions.follow import Follow
from snapd.disk.live_link import MARK
from snapd.model import stages
from snapd.model.access import Peer
from snapd.model.errors import (
    AccessDenied,
    ConnectionLost,
    DestinationMissing,
    DestinationTaken,
    FollowNotFound,
    NameNotFound,
    NoSpace,
    NotAllowed,
    QueueFull,
    StoreNotAllowed,
    UsageError,
    VersionNotFound,
)
from snapd.model.follow_records import FollowRecord
from snapd.model.follows import FOLLOWS_OF_A_USER_MAX, FollowRequest, follow_id_of
from snapd.model.layout import object_key
from snapd.model.settings import FollowSettings
from snapd.model.versions import parse_version
from snapd.registry.names import model_key
from snapd.remote.memory import Fault, MemoryStore, Stall
from tests.unit.actions.following import (
    ASKER,
    ONE,
    TWO,
    Bench,
    follow,
    following_node,
)


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore("memory://store")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "srv" / "iris"


async def two_versions(bench: Bench) -> None:
    await bench.add("v1.0.0", ONE)
    await bench.add("v2.0.0", TWO)
    await bench.promote("v1.0.0")
    await bench.until_live("v1.0.0")


async def test_what_is_promoted_becomes_live_and_what_was_stays_for_a_rollback(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        view = await bench.until(lambda view: view.error is not None)
        assert (view.state, view.error and view.error["code"]) == ("absent", "no_such_name")
        await two_versions(bench)
        assert bench.served() == b"1"
        await bench.until(lambda _: bench.held() == {ONE.id})
        await bench.promote("v2.0.0")
        view = await bench.until_live("v2.0.0")
        assert bench.served() == b"2"
        await bench.until(lambda _: bench.held() == {ONE.id, TWO.id})
        assert [each.version for each in view.previous] == ["v1.0.0"]
        assert view.change is not None
        assert (view.change.by, view.change.action) == ("ann", "promote")
        gets = memory.faults.count("get")
        await bench.roll_back()
        view = await bench.until_live("v1.0.0")
        assert memory.faults.count("get") == gets, "nothing is downloaded"
        assert (view.switches, view.behind_seconds, view.error) == (3, 0, None)
        assert bench.served() == b"1"
        assert sorted(os.listdir(dest)) == [MARK, "current"]


async def test_only_so_many_former_ones_are_held(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest, keep_previous=0)) as bench:
        await two_versions(bench)
        await bench.promote("v2.0.0")
        await bench.until_live("v2.0.0")
        await bench.until(lambda _: bench.held() == {TWO.id})


async def test_one_poll_a_document_however_many_follow_it(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    follows = [follow(dest.with_name(f"n{n}"), poll_seconds=0.05) for n in range(4)]
    follows.append(follow(dest.with_name("other"), "iris@champion", poll_seconds=0.05))
    (tmp_path / "srv").mkdir()
    async with following_node(tmp_path, memory, *follows) as bench:
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        await bench.until_all(lambda views: sum(x.version == "v1.0.0" for x in views) == 4)
        heads = memory.faults.requests["head", model_key("iris")]
        polls = [view.polls for view in bench.following.views()]
        assert max(polls) <= heads <= max(polls) + 1
        gets = memory.faults.requests["get_document", model_key("iris")]
        seen = bench.following.views()[0].polls
        await bench.until_all(lambda views: views[0].polls >= seen + 3)
        assert memory.faults.requests["get_document", model_key("iris")] == gets, "nothing changed"


async def test_a_snapshot_that_fails_verification_is_never_live(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        damaged = next(digest for digest in TWO.objects if digest not in ONE.objects)
        memory.objects[object_key(damaged)] = b"wrong"
        await bench.promote("v2.0.0")
        view = await bench.until(lambda view: view.error is not None)
        assert view.error is not None
        assert (view.error["code"], view.state, view.version) == (
            "digest_mismatch",
            "behind",
            "v1.0.0",
        )
        assert view.target_version == "v2.0.0"
        assert view.behind_seconds > 0
        assert bench.served() == b"1"
        await bench.roll_back()
        view = await bench.until_live("v1.0.0")
        assert (view.behind_seconds, view.error) == (0, None)
        assert view.last_error is not None, "what went wrong is still told"
        await bench.until(lambda _: bench.held() == {ONE.id})


async def test_what_was_damaged_in_the_cache_is_fetched_again_before_it_is_live(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        await bench.promote("v2.0.0")
        await bench.until_live("v2.0.0")
        spoiled = bench.cache.trees.path(ONE.id) / "version"
        spoiled.chmod(0o644)
        spoiled.write_bytes(b"spoiled")
        await bench.roll_back()
        await bench.until_live("v1.0.0")
        assert bench.served() == b"1"


async def test_a_rollback_does_not_wait_for_a_pull_that_hangs(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    stall = Stall()
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        new = next(digest for digest in TWO.objects if digest not in ONE.objects)
        memory.faults.add(Fault("get", object_key(new), stall=stall))
        await bench.promote("v2.0.0")
        await bench.until(lambda view: view.state == "pulling" and view.job_id)
        await bench.roll_back()
        view = await bench.until_live("v1.0.0")
        assert view.switches == 1, "it was live all the time"
        stall.release()


async def test_a_store_that_is_away_changes_nothing_but_is_told(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        fault = memory.faults.add(Fault("head", error=ConnectionLost("gone")))
        view = await bench.until(lambda view: view.poll_failures > 1)
        assert view.error is not None
        assert (view.error["code"], view.version, view.state) == (
            "connection_lost",
            "v1.0.0",
            "live",
        )
        memory.faults.plan.remove(fault)
        await bench.promote("v2.0.0")
        assert (await bench.until_live("v2.0.0")).error is None


async def test_a_document_that_is_damaged_or_lost_changes_nothing_but_is_told(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        good = memory.objects[model_key("iris")]
        await memory.put(model_key("iris"), b"{")
        view = await bench.until(lambda view: view.error is not None)
        assert view.error is not None
        assert (view.error["code"], view.version) == ("registry_damaged", "v1.0.0")
        assert view.poll_failures == 0
        await memory.delete(model_key("iris"))
        await bench.until(lambda view: view.error and view.error["code"] == "no_such_name")
        assert bench.served() == b"1"
        await memory.put(model_key("iris"), good)
        assert (await bench.until(lambda view: view.error is None)).version == "v1.0.0"


async def test_an_empty_stage_leaves_what_is_live(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        await bench.change(lambda m, who: stages.move(m, "production", "archived", who))
        view = await bench.until(lambda view: view.error is not None)
        assert view.error is not None
        assert (view.error["code"], view.version) == ("no_such_version", "v1.0.0")
        assert bench.served() == b"1"


async def test_another_name_for_the_same_bytes_is_no_switch(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        await bench.add("v1.0.1", ONE)
        await bench.promote("v1.0.1")
        assert (await bench.until_live("v1.0.1")).switches == 1


async def test_the_next_daemon_goes_on_and_needs_no_store_for_it(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        await bench.promote("v2.0.0")
        since = (await bench.until_live("v2.0.0")).live_since
    memory.faults.add(Fault("head", error=ConnectionLost("gone")))
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        view = await bench.until(lambda view: view.poll_failures > 0)
        assert (view.version, view.live_since) == ("v2.0.0", since)
        assert [each.version for each in view.previous] == ["v1.0.0"]
        await bench.until(lambda _: bench.held() == {ONE.id, TWO.id})


async def test_a_link_that_was_removed_or_bent_is_made_again(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        (dest / "current").unlink()
        await bench.polled()
        await bench.until(lambda _: (dest / "current").exists())
        shutil.rmtree(dest)
        await bench.until(lambda _: (dest / "current").exists())
        assert bench.served() == b"1"
        assert bench.view().version == "v1.0.0"


async def test_a_record_that_is_lost_is_made_anew_from_the_link(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
    [record] = (tmp_path / "state" / "follows").glob("*.json")
    record.write_text("{")
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        view = await bench.until_live("v1.0.0")
        assert view.switches == 0
        await bench.until(lambda _: bench.held() == {ONE.id})
        assert record.with_name(record.name + ".damaged").exists()


async def test_what_is_live_and_lost_from_the_cache_is_pulled_again(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
    shutil.rmtree(tmp_path / "state")
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await bench.until_live("v1.0.0")
        assert bench.served() == b"1"


async def test_the_configuration_adds_changes_and_ends(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    other = dest.with_name("other")
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        settings = replace(bench.settings, follows=(follow(dest), follow(other)))
        bench.following.apply(settings)
        await bench.until_all(lambda views: [x.version for x in views] == ["v1.0.0"] * 2)
        changed = follow(dest, "iris@staging")
        two = parse_version("v2.0.0")
        await bench.change(lambda m, who: stages.move(m, two, "staging", who))
        bench.following.apply(replace(settings, follows=(changed,)))
        await bench.until_all(lambda views: [x.version for x in views] == ["v2.0.0"])
        view = bench.view()
        assert [each.version for each in view.previous] == ["v1.0.0"]
        assert (other / "current" / "version").read_bytes() == b"1", "its link stays"
        assert not (other / MARK).exists()
        kinds = {x.kind: x.subject for x in bench.cache.leases.holding(ONE.id)}
        assert kinds["link"] == f"{other}/current"
        (other / "current").unlink()
        assert "link" not in {x.kind for x in bench.cache.leases.holding(ONE.id)}


async def test_what_the_configuration_no_longer_follows_at_a_start_is_let_go(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
    async with following_node(tmp_path, memory) as bench:
        assert bench.following.views() == []
        assert bench.held() == set()
        assert [x.kind for x in bench.cache.leases.holding(ONE.id)] == ["link"]
        assert list((tmp_path / "state" / "follows").iterdir()) == []


async def test_a_caller_follows_over_restarts_and_ends_it(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory) as bench:
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        os.mkdir(dest)
        wanted = FollowRequest(follow(dest))
        view = await bench.following.add(wanted, ASKER, may_hook=False)
        assert (view.configured, view.uid) == (False, ASKER.uid)
        again = await bench.following.add(wanted, ASKER, may_hook=False)
        assert again.follow_id == view.follow_id
        await bench.until_live("v1.0.0")
    async with following_node(tmp_path, memory) as bench:
        await bench.until_live("v1.0.0")
        with pytest.raises(NotAllowed):
            await bench.following.remove(view.follow_id, by_uid=ASKER.uid + 1)
        await bench.following.remove(view.follow_id, by_uid=ASKER.uid)
        with pytest.raises(FollowNotFound):
            await bench.following.remove(view.follow_id)
    async with following_node(tmp_path, memory) as bench:
        assert bench.following.views() == []


async def test_what_a_caller_may_not_follow(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)

        async def refused(kind: type[Exception], made: FollowSettings) -> None:
            with pytest.raises(kind):
                await bench.following.add(FollowRequest(made), ASKER, may_hook=False)

        mine = tmp_path / "mine"
        await refused(DestinationMissing, follow(mine))
        mine.mkdir()
        await refused(NotAllowed, follow(mine, hook=("/bin/true",)))
        await refused(NameNotFound, follow(mine, "irs@production"))
        await refused(VersionNotFound, follow(mine, "iris@nowhere"))
        await refused(StoreNotAllowed, follow(mine, store="memory://other"))
        await refused(DestinationTaken, follow(dest))
        await refused(DestinationTaken, follow(dest / "below"))
        await refused(DestinationTaken, follow(dest.parent))
        await refused(UsageError, follow(bench.cache.root / "trees"))
        (mine / "theirs").touch()
        await refused(DestinationTaken, follow(mine))
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "srv")
        await refused(DestinationMissing, follow(link / "x"))
        with pytest.raises(UsageError, match="configuration"):
            await bench.following.remove(follow_id_of(str(dest)))
        assert len(bench.following.views()) == 1


async def test_a_user_has_so_many_follows_at_most(tmp_path: Path, memory: MemoryStore) -> None:
    async with following_node(tmp_path, memory) as bench:
        for number in range(FOLLOWS_OF_A_USER_MAX + 1):
            made = tmp_path / f"d{number}"
            made.mkdir()
            request = FollowRequest(follow(made, poll_seconds=60.0), wait=True)
            if number < FOLLOWS_OF_A_USER_MAX:
                await bench.following.add(request, ASKER, may_hook=False)
            else:
                with pytest.raises(QueueFull):
                    await bench.following.add(request, ASKER, may_hook=False)


async def test_somebody_else_may_not_name_a_directory_of_mine(
    tmp_path: Path, memory: MemoryStore
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    stranger = Peer(1, ASKER.uid + 12345, ASKER.gid + 12345, frozenset())
    async with following_node(tmp_path, memory) as bench:
        request = FollowRequest(follow(mine), wait=True)
        with pytest.raises(AccessDenied):
            await bench.following.add(request, stranger, may_hook=False)
        assert list(mine.iterdir()) == []


async def test_the_hook_is_told_and_its_failure_changes_nothing(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text(
        "#!/bin/sh\n"
        'echo "$SNAPSYNC_REF $SNAPSYNC_VERSION $SNAPSYNC_ID ${SNAPSYNC_PREVIOUS_ID:--}'
        ' $SNAPSYNC_PATH $1" >>"$1"\n'
        'test "$SNAPSYNC_VERSION" = v1.0.0\n'
    )
    hook.chmod(0o755)
    log = tmp_path / "log"
    made = follow(dest, hook=(str(hook), str(log)))
    async with following_node(tmp_path, memory, made) as bench:
        await two_versions(bench)
        await bench.until(lambda view: view.hook and not view.hook.failed)
        await bench.promote("v2.0.0")
        view = await bench.until(lambda view: view.hook_failures)
        assert (view.version, view.state, view.error) == ("v2.0.0", "live", None)
        assert view.hook is not None
        assert (view.hook.status, view.hook.timed_out) == (1, False)
        assert view.last_error is not None
        assert view.last_error["code"] == "hook_failed"
        assert log.read_text().splitlines() == [
            f"iris@production v1.0.0 {ONE.id} - {dest}/current {log}",
            f"iris@production v2.0.0 {TWO.id} {ONE.id} {dest}/current {log}",
        ]


async def test_who_waits_for_the_hook_sees_it_from_the_switch_on(
    tmp_path: Path, memory: MemoryStore, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following_node(tmp_path, memory, follow(dest, hook=("/bin/true",))) as bench:
        real, seen = bench.cache.follows.keep, []

        def keep(record: FollowRecord) -> None:
            view = bench.view()
            seen.append((view.version, view.hook_running))
            real(record)

        monkeypatch.setattr(bench.cache.follows, "keep", keep)
        await two_versions(bench)
        await bench.until(lambda view: view.hook and not view.hook_running)
        assert ("v1.0.0", True) in seen


async def test_a_hook_that_a_death_cut_short_is_run_by_the_next_daemon(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    log = tmp_path / "log"
    slow = follow(dest, hook=("/bin/sh", "-c", f"echo $SNAPSYNC_VERSION >>{log}; exec sleep 60"))
    quick = follow(dest, hook=("/bin/sh", "-c", f"echo $SNAPSYNC_VERSION >>{log}"))
    async with following_node(tmp_path, memory, slow) as bench:
        await two_versions(bench)
        await bench.until(lambda view: view.hook_running and log.exists())
    async with following_node(tmp_path, memory, quick) as bench:
        await bench.until(lambda _: not bench.cache.follows.all()[str(dest)].hook_due)
        assert log.read_text() == "v1.0.0\nv1.0.0\n"
    async with following_node(tmp_path, memory, quick) as bench:
        await bench.polled()
        assert log.read_text() == "v1.0.0\nv1.0.0\n", "once it has ended it is not run again"


async def test_a_pull_that_somebody_cancels_is_tried_again(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    stall = Stall()
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        memory.faults.add(Fault("get", nth={1}, stall=stall))
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        view = await bench.until(lambda view: view.job_id)
        with anyio.fail_after(60):
            await stall.reached.wait()
        bench.pulls.cancel(view.job_id)
        view = await bench.until_live("v1.0.0")
        assert view.last_error is not None
        assert view.last_error["code"] == "job_cancelled"


async def test_the_configuration_comes_before_callers(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    around = dest.with_name("around")
    async with following_node(tmp_path, memory) as bench:
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        for place in (dest, around / "in"):
            os.makedirs(place)
            await bench.following.add(FollowRequest(follow(place)), ASKER, may_hook=False)
        await bench.until_all(lambda views: [x.version for x in views] == ["v1.0.0"] * 2)
        os.rename(around / "in", dest.with_name("out"))
        settings = replace(bench.settings, follows=(follow(dest), follow(around)))
        bench.following.apply(settings)
        await bench.until_all(
            lambda views: [(x.configured, x.version) for x in views] == [(True, "v1.0.0")] * 2
        )
        assert [view.dest for view in bench.following.views()] == [str(around), str(dest)]
        assert bench.following.views()[1].switches == 0, "what was live stays so"


async def test_a_follow_outlives_a_defect(
    tmp_path: Path, memory: MemoryStore, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapd.actions.following.DEFECT_PAUSE_SECONDS", 0.01)
    real = Follow._step
    defects = [ZeroDivisionError(), ZeroDivisionError()]

    async def step(self: Follow) -> None:
        if defects:
            raise defects.pop()
        await real(self)

    monkeypatch.setattr(Follow, "_step", step)
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        assert bench.view().last_error is None or bench.view().error is None
        assert defects == []


async def test_what_is_withdrawn_while_it_is_pulled_is_never_live(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    stall = Stall()
    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        new = next(digest for digest in TWO.objects if digest not in ONE.objects)
        memory.faults.add(Fault("get", object_key(new), stall=stall))
        await bench.promote("v2.0.0")
        await bench.until(lambda view: view.state == "pulling" and view.job_id)
        await bench.change(lambda m, who: stages.move(m, "production", "archived", who))
        view = await bench.until(lambda view: view.error and view.state != "pulling")
        assert (view.version, view.target_version, view.behind_seconds) == ("v1.0.0", "", 0)
        stall.release()
        await bench.until(lambda _: bench.held() == {ONE.id})
        await bench.polled()
        assert bench.served() == b"1"
        await bench.promote("v2.0.0")
        await bench.until_live("v2.0.0")


async def test_a_directory_that_was_replaced_during_a_pull_is_left_alone(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    stall = Stall()
    async with following_node(tmp_path, memory, follow(dest, poll_seconds=60.0)) as bench:
        memory.faults.add(Fault("get", nth={1}, stall=stall))
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        bench.following.apply(bench.settings)
        with anyio.fail_after(60):
            await stall.reached.wait()
        shutil.rmtree(dest)
        os.mkdir(dest)
        os.symlink("/elsewhere", dest / "current")
        stall.release()
        view = await bench.until(lambda view: view.error)
        assert view.error is not None
        assert view.error["code"] == "destination_taken"
        assert os.readlink(dest / "current") == "/elsewhere"


async def test_who_begins_to_follow_is_not_behind_since_the_promotion(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    stall = Stall()
    async with following_node(tmp_path, memory) as bench:
        bench.seconds_ago = 86400.0
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        memory.faults.add(Fault("get", nth={1}, stall=stall))
        os.mkdir(dest)
        await bench.following.add(FollowRequest(follow(dest)), ASKER, may_hook=False)
        view = await bench.until(lambda view: view.state == "pulling" and view.job_id)
        assert 0 <= view.behind_seconds < 3600
        assert view.change is not None
        stall.release()
        await bench.until_live("v1.0.0")


async def test_a_reload_does_not_wait_for_a_store_that_was_away(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    memory.faults.add(Fault("head", nth={1}, error=ConnectionLost("gone")))
    async with following_node(tmp_path, memory, follow(dest, poll_seconds=3600.0)) as bench:
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        await bench.until(lambda view: view.poll_failures == 1)
        bench.following.apply(bench.settings)
        await bench.until_live("v1.0.0")


async def test_what_can_not_be_let_go_of_stays_held_until_the_next_daemon(
    tmp_path: Path, memory: MemoryStore, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise NoSpace("the disk is full")

    async with following_node(tmp_path, memory, follow(dest)) as bench:
        await two_versions(bench)
        with monkeypatch.context() as patched:
            patched.setattr(bench.cache.leases, "add", full)
            bench.following.apply(replace(bench.settings, follows=()))
            await bench.until_all(lambda views: not views)
        assert bench.held() == {ONE.id}
    async with following_node(tmp_path, memory) as bench:
        assert bench.held() == set()
        assert [x.kind for x in bench.cache.leases.holding(ONE.id)] == ["link"]


async def test_a_lost_record_of_a_caller_leaves_what_is_live_held_by_its_link(
    tmp_path: Path, memory: MemoryStore, dest: Path
) -> None:
    os.mkdir(dest.parent)
    os.mkdir(dest)
    async with following_node(tmp_path, memory) as bench:
        await bench.add("v1.0.0", ONE)
        await bench.promote("v1.0.0")
        await bench.following.add(FollowRequest(follow(dest)), ASKER, may_hook=False)
        await bench.until_live("v1.0.0")
    [record] = (tmp_path / "state" / "follows").glob("*.json")
    record.write_text("{")
    async with following_node(tmp_path, memory) as bench:
        assert bench.held() == set()
        assert [x.kind for x in bench.cache.leases.holding(ONE.id)] == ["link"]
