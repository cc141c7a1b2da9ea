from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snapd.disk import leases as leases_module
from snapd.disk.cache import open_cache
from snapd.disk.leases import Leases
from snapd.disk.locks import giving_lock
from snapd.model.errors import (
    AccessDenied,
    LeaseNotFound,
    LeaseOfAnother,
    QueueFull,
    SnapshotNotFound,
    UsageError,
)
from snapd.model.ids import SnapshotId
from snapd.model.jobs import SnapshotView
from snapd.model.leases import Lease, LeaseRequest, RequestedKind
from tests.caching import store_all
from tests.ordinary_user import as_ordinary_user, nobodys_directory
from tests.samples import sample

ID = SnapshotId("ab" * 32)
OTHER = SnapshotId("cd" * 32)
ABSENT = SnapshotId("ef" * 32)
UID = "0a1b2c3d-0000-4000-8000-00000000abcd"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with two trees, as far as leases look at it."""
    for snapshot_id in (ID, OTHER):
        (tmp_path / "state" / "trees" / snapshot_id).mkdir(parents=True)
    return tmp_path / "state"


@pytest.fixture
def kubelet(tmp_path: Path) -> Path:
    (tmp_path / "kubelet" / "pods" / UID).mkdir(parents=True)
    return tmp_path / "kubelet"


@pytest.fixture
def leases(state: Path, kubelet: Path) -> Leases:
    times = iter(range(100, 100_000))
    return Leases(state, now=lambda: float(next(times)), kubelet_directory=kubelet)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def files(leases: Leases) -> list[str]:
    return sorted(os.listdir(leases.root)) if leases.root.exists() else []


def pin(leases: Leases, snapshot_id: SnapshotId = ID, reason: str = "") -> Lease:
    return leases.add(LeaseRequest(snapshot_id, "pin", reason=reason), uid=7)


def test_nobody_holds_anything_at_first(leases: Leases) -> None:
    assert leases.holding(ID) == []
    assert leases.held() == {}
    assert files(leases) == []


def test_a_pin_holds_until_it_is_removed(leases: Leases, state: Path, kubelet: Path) -> None:
    made = pin(leases, reason="baseline")
    assert (made.kind, made.reason, made.uid, made.since) == ("pin", "baseline", 7, 100.0)
    assert leases.holding(ID) == [made]
    assert leases.holding(OTHER) == []
    again = Leases(state, now=lambda: 0.0, kubelet_directory=kubelet)
    assert again.held() == {ID: [made]}
    assert again.remove(made.lease_id) == made
    assert leases.held() == {}
    assert files(leases) == []
    with pytest.raises(LeaseNotFound):
        leases.remove(made.lease_id)


def test_files_of_leases_are_private_and_whole(leases: Leases) -> None:
    made = pin(leases)
    path = leases.root / f"{made.lease_id}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(leases.root.stat().st_mode) == 0o700
    assert Lease.from_json(json.loads(path.read_text())) == made


def test_a_second_pin_replaces_the_first(leases: Leases) -> None:
    pin(leases, reason="old")
    pin(leases, OTHER)
    new = pin(leases, reason="new")
    assert leases.holding(ID) == [new]
    assert len(files(leases)) == 2


def test_only_what_is_here_can_be_pinned(leases: Leases) -> None:
    with pytest.raises(SnapshotNotFound, match=ABSENT):
        pin(leases, ABSENT)
    assert files(leases) == []


def test_a_process_holds_until_it_is_killed(leases: Leases, child: subprocess.Popen[bytes]) -> None:
    request = LeaseRequest(ABSENT, "process", reason="train.py")
    made = leases.add(request, pid=child.pid, uid=7)
    assert leases.holding(ABSENT) == [made]
    assert f"process {child.pid} (train.py)" == made.describe()
    child.kill()
    child.wait()
    assert not leases.alive(made)
    assert leases.holding(ABSENT) == []
    assert files(leases) == []


def test_each_process_holds_by_itself(leases: Leases, child: subprocess.Popen[bytes]) -> None:
    request = LeaseRequest(ID, "process")
    mine = leases.add(request, pid=os.getpid())
    leases.add(request, pid=child.pid)
    again = leases.add(request, pid=os.getpid())
    assert [each.process for each in leases.holding(ID)][1] == mine.process
    assert len(files(leases)) == 2
    child.kill()
    child.wait()
    assert leases.holding(ID) == [again]


def test_a_process_that_is_gone_gets_no_lease(
    leases: Leases, child: subprocess.Popen[bytes]
) -> None:
    child.kill()
    child.wait()
    for pid in (child.pid, 0):
        with pytest.raises(UsageError, match="process"):
            leases.add(LeaseRequest(ID, "process"), pid=pid)
    assert files(leases) == []


def test_a_lease_of_an_earlier_run_of_the_machine_holds_nothing(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = leases.add(LeaseRequest(ID, "process"), pid=os.getpid())
    kept = pin(leases)
    assert leases.holding(ID) == [made, kept]
    monkeypatch.setattr("snapd.disk.processes.boot_id", lambda: "another boot")
    assert leases.holding(ID) == [kept]


@pytest.mark.parametrize("change", ["removed", "elsewhere", "a file", "a directory", "moved"])
def test_a_link_holds_as_long_as_it_points_at_the_tree(
    leases: Leases, state: Path, tmp_path: Path, change: str
) -> None:
    link = tmp_path / "data" / "current"
    link.parent.mkdir()
    link.symlink_to(state / "trees" / ID)
    made = leases.add(LeaseRequest(ID, "link", str(link)))
    assert leases.holding(ID) == [made]
    if change == "moved":
        link.parent.rename(tmp_path / "other")
    else:
        link.unlink()
    if change == "elsewhere":
        link.symlink_to(state / "trees" / OTHER)
    elif change == "a file":
        link.write_text(f"trees/{ID}")
    elif change == "a directory":
        link.mkdir()
    assert leases.holding(ID) == []
    assert files(leases) == []


def test_a_link_is_known_by_the_tree_however_the_cache_is_reached(
    leases: Leases, tmp_path: Path
) -> None:
    link = tmp_path / "current"
    link.symlink_to(f"/mounted/elsewhere/trees/{ID}/")
    made = leases.add(LeaseRequest(ID, "link", str(link)))
    assert leases.holding(ID) == [made]


def test_a_link_is_asked_where_it_points_and_nothing_is_opened(
    leases: Leases, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, tmp_path / "absent", fifo / "below"):
        with pytest.raises(UsageError, match="link"):
            leases.add(LeaseRequest(ID, "link", str(path)))
    assert files(leases) == []


def test_a_link_that_can_not_be_seen_is_refused_and_one_that_hides_later_holds() -> None:
    with nobodys_directory() as base:
        (base / "state" / "trees").mkdir(parents=True)
        closed = base / "closed"
        closed.mkdir()
        (closed / "current").symlink_to(f"/trees/{ID}")
        os.chown(base / "state", 65534, 65534)

        def use() -> None:
            found = Leases(base / "state", now=lambda: 1.0)
            request = LeaseRequest(ID, "link", str(closed / "current"))
            made = found.add(request)
            os.chmod(closed, 0o000)
            assert found.holding(ID) == [made]
            with pytest.raises(UsageError, match="not seen here as a link"):
                found.add(request)

        os.chown(closed, 65534, 65534)
        as_ordinary_user(use)


def test_a_pod_holds_until_the_kubelet_has_removed_it(leases: Leases, kubelet: Path) -> None:
    made = leases.add(LeaseRequest(ID, "pod", UID))
    assert leases.holding(ID) == [made]
    (kubelet / "pods" / UID).rmdir()
    assert leases.holding(ID) == []


def test_without_a_directory_of_pods_nobody_knows_so_they_hold(
    leases: Leases, kubelet: Path
) -> None:
    made = leases.add(LeaseRequest(ID, "pod", UID))
    shutil.rmtree(kubelet)
    assert leases.holding(ID) == [made]
    with pytest.raises(UsageError, match="no pod"):
        leases.add(LeaseRequest(ID, "pod", UID))


def test_a_pod_that_is_not_here_is_refused(leases: Leases) -> None:
    with pytest.raises(UsageError, match="no pod"):
        leases.add(LeaseRequest(ID, "pod", UID.replace("0", "1")))
    with pytest.raises(UsageError, match="not a pod UID"):
        leases.add(LeaseRequest(ID, "pod", "../pods"))


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 60_000, "unreadable"]
)
def test_a_lease_that_can_not_be_read_holds_like_a_pin(leases: Leases, damage: bytes | str) -> None:
    made = leases.add(LeaseRequest(ID, "process"), pid=os.getpid())
    path = leases.root / f"{made.lease_id}.json"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.unlink()
        path.mkdir()
    (found,) = leases.holding(ID)
    assert (found.kind, found.lease_id) == ("pin", made.lease_id)
    assert list(leases.held()) == [ID]
    assert leases.holding(OTHER) == []


def test_a_damaged_lease_can_be_removed(leases: Leases) -> None:
    made = pin(leases)
    (leases.root / f"{made.lease_id}.json").write_bytes(b"garbage")
    leases.remove(made.lease_id)
    assert leases.held() == {}


def test_a_lease_under_a_wrong_name_is_not_believed(leases: Leases) -> None:
    made = pin(leases)
    theirs = leases.root / f"cdcdcdcdcdcd-{made.lease_id[13:]}.json"
    (leases.root / f"{made.lease_id}.json").rename(theirs)
    assert leases.holding(ID) == []
    assert [each.reason for each in leases.holding(OTHER)] == ["a lease that can't be read"]


def test_other_files_are_nobodys_business(leases: Leases) -> None:
    pin(leases)
    (leases.root / "notes.json").write_text("{}")
    (leases.root / "README").write_text("")
    assert len(leases.held()[ID]) == 1
    with pytest.raises(LeaseNotFound):
        leases.remove("notes")
    with pytest.raises(LeaseNotFound):
        leases.remove("../trees/x")


def test_what_a_killed_writer_left_is_no_lease_and_goes_with_the_next_one(leases: Leases) -> None:
    made = pin(leases)
    left = leases.root / "abababababab-000000000000.new"
    left.write_text('{"half":')
    assert leases.held() == {ID: [made]}
    pin(leases, OTHER)
    assert not left.exists()


def test_who_takes_a_tree_away_excludes_who_leases_it(leases: Leases, state: Path) -> None:
    taking = giving_lock(state / "locks")
    with ThreadPoolExecutor(1) as threads:
        with taking:
            pinning = threads.submit(pin, leases)
            time.sleep(0.05)
            assert not pinning.done()
            assert leases.holding(ID) == [], "whoever holds the lock can look"
            (state / "trees" / ID).rmdir()
        with pytest.raises(SnapshotNotFound):
            pinning.result()


def test_many_threads_may_add_at_once(leases: Leases) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: pin(leases, (ID, OTHER)[n % 2], str(n)), range(40)))
    assert {len(each) for each in leases.held().values()} == {1}
    assert len(files(leases)) == 2


def test_there_is_a_bound_that_dead_leases_do_not_reach(
    leases: Leases, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "LEASES_MAX", 2)
    leases.add(LeaseRequest(ID, "process"), pid=child.pid)
    leases.add(LeaseRequest(OTHER, "process"), pid=child.pid)
    with pytest.raises(QueueFull):
        pin(leases)
    child.kill()
    child.wait()
    pin(leases)
    pin(leases, OTHER)
    with pytest.raises(QueueFull):
        leases.add(LeaseRequest(ID, "process"), pid=os.getpid())


def test_the_list_shows_paths_given_out_too(leases: Leases) -> None:
    made = pin(leases)
    views = [
        SnapshotView(each, "", "/t", 1, 1, 1, completed_at=1.0, used_at=used_at)
        for each, used_at in ((OTHER, 95.0), (ID, 10.0))
    ]
    listed = leases.listed(views, lease_seconds=50.0)
    assert listed[0] == made
    assert [(each.kind, each.snapshot_id, each.until) for each in listed[1:]] == [
        ("time", OTHER, 145.0)
    ]


def test_somebody_elses_cache_can_not_be_leased_from() -> None:
    with nobodys_directory() as base:
        (base / "trees" / ID).mkdir(parents=True)
        os.chown(base, os.geteuid(), os.getegid())

        def use() -> None:
            found = Leases(base, now=lambda: 1.0)
            assert found.holding(ID) == []
            with pytest.raises(AccessDenied):
                pin(found)

        as_ordinary_user(use)


@pytest.mark.parametrize("kind", ["pin", "process"])
def test_only_what_can_outlive_a_power_loss_is_made_durable(
    leases: Leases, kind: RequestedKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("snapd.disk.fsops.fsync", synced.append)
    leases.add(LeaseRequest(ID, kind), pid=os.getpid())
    assert len(synced) == (1 if kind == "pin" else 0)


def test_pins_survive_the_loss_of_the_index_and_of_the_process(tmp_path: Path) -> None:
    made = sample({"a": b"1"})
    root = tmp_path / "cache"
    with open_cache(root, now=lambda: 7.0) as cache:
        store_all(cache, made)
        cache.publish(made.manifest, store="", now=9.0)
        kept = cache.leases.add(LeaseRequest(made.id, "pin", reason="why"), uid=3)
    for path in root.glob("index.sqlite3*"):
        path.unlink()
    with open_cache(root, now=lambda: 7.0) as cache:
        assert cache.leases.held() == {made.id: [kept]}
        assert cache.leases.holding(made.id) == [kept]


def test_a_follow_holds_exactly_what_it_says(leases: Leases) -> None:
    leases.hold_for_follow("/srv/a", [ID])
    leases.hold_for_follow("/srv/b", [ID, ABSENT])
    before = {each.lease_id for each in leases.iterate()}
    leases.hold_for_follow("/srv/a", [ID, OTHER])
    assert before < {each.lease_id for each in leases.iterate()}, "what is held stays held"
    assert {(x.subject, x.snapshot_id) for x in leases.iterate()} == {
        ("/srv/a", ID),
        ("/srv/a", OTHER),
        ("/srv/b", ID),
        ("/srv/b", ABSENT),
    }
    leases.hold_for_follow("/srv/a", [OTHER])
    assert [x.describe() for x in leases.holding(ID)] == ["follow at /srv/b"]
    assert leases.followed() == {"/srv/a", "/srv/b"}
    with pytest.raises(LeaseOfAnother):
        leases.remove(leases.holding(ID)[0].lease_id)
    leases.hold_for_follow("/srv/b", [])
    assert leases.held().keys() == {OTHER}


def test_nobody_asks_for_the_lease_of_a_follow() -> None:
    with pytest.raises(UsageError):
        LeaseRequest.from_json({"id": ID, "kind": "follow", "subject": "/srv/a"})
