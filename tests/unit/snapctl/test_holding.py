from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from snapctl.context import Context
from snapctl.holding import DaemonKeeper, OwnKeeper, held_meanwhile, hold_link, keeper, keeper_of
from snapctl.laying_out import lay_out
from snapd.disk.cache import open_cache
from snapd.disk.leases import Leases
from snapd.model.checkouts import CheckoutMode, CheckoutOptions
from snapd.model.errors import LeaseNotFound, UsageError
from snapd.model.leases import Lease, LeaseRequest
from snapd.model.settings import Settings
from tests.caching import store_all
from tests.samples import Sample, sample
from tests.unit.snapctl.scripted import scripted_daemon


@pytest.fixture
def made() -> Sample:
    return sample({"a": b"hello"})


@pytest.fixture
def state(tmp_path: Path, made: Sample) -> Path:
    """A cache with one snapshot, used when time began."""
    with open_cache(tmp_path / "state", now=lambda: 1.0) as cache:
        store_all(cache, made)
        cache.publish(made.manifest, store="", now=1.0)
    return tmp_path / "state"


@pytest.fixture
def own(state: Path) -> OwnKeeper:
    return OwnKeeper(state, Settings)


def test_a_cache_of_ones_own_is_written_to(own: OwnKeeper, made: Sample) -> None:
    pinned = own.add(LeaseRequest(made.id, "pin", reason="why"))
    assert own.leases() == [pinned]
    assert pinned.uid == os.getuid()
    mine = own.add(LeaseRequest(made.id, "process"))
    assert mine.process is not None
    assert mine.process.pid == os.getpid()
    own.remove(mine.lease_id)
    assert own.leases() == [pinned]
    with pytest.raises(LeaseNotFound):
        own.remove(mine.lease_id)


def test_the_first_lease_may_be_the_first_use_of_a_cache(tmp_path: Path, made: Sample) -> None:
    own = OwnKeeper(tmp_path / "new", Settings)
    assert own.leases() == []
    assert not (tmp_path / "new").exists()
    mine = own.add(LeaseRequest(made.id, "process"))
    with open_cache(tmp_path / "new", now=lambda: 1.0) as cache:
        assert cache.leases.held() == {made.id: [mine]}


def test_a_daemon_is_told(tmp_path: Path, made: Sample) -> None:
    at = tmp_path / "s"
    lease = {"lease_id": "x", "snapshot_id": made.id, "kind": "pin", "since": 1.0}
    scripts = {
        ("GET", "/v1/status"): lambda it: it.reply(200, {"trees_directory": "/t"}),
        ("POST", "/v1/leases"): lambda it: it.reply(201, lease),
        ("GET", "/v1/leases"): lambda it: it.reply(200, {"leases": [lease]}),
        ("DELETE", "/v1/leases/x"): lambda it: it.reply(200, lease),
    }
    with scripted_daemon(at, scripts) as daemon:
        told = keeper(Context(socket=str(at)), here=False, cache_dir=None)
        assert isinstance(told, DaemonKeeper)
        assert told.trees_directory() == Path("/t")
        added = told.add(LeaseRequest(made.id, "pin", reason="why"))
        assert told.leases() == [added]
        told.remove("x")
    body = {"id": made.id, "kind": "pin", "subject": "", "reason": "why"}
    assert daemon.requests[1] == ("POST", "/v1/leases", body)
    assert daemon.requests[3] == ("DELETE", "/v1/leases/x", None)


def test_the_daemon_keeps_its_own_cache_only(tmp_path: Path, state: Path) -> None:
    at = tmp_path / "s"
    context = Context({"HOME": str(tmp_path)}, socket=str(at))
    trees = state / "trees"
    assert isinstance(keeper_of(context, trees), OwnKeeper)
    status = {("GET", "/v1/status"): lambda it: it.reply(200, {"trees_directory": str(trees)})}
    with scripted_daemon(at, status):
        assert isinstance(keeper_of(context, trees), DaemonKeeper)
        assert isinstance(keeper_of(context, tmp_path / "another"), OwnKeeper)


def test_a_standalone_run_keeps_its_own(tmp_path: Path, state: Path, made: Sample) -> None:
    own = keeper(Context({"HOME": str(tmp_path)}), here=True, cache_dir=str(state))
    assert own.trees_directory() == state / "trees"


def test_a_block_holds_for_this_process_and_no_longer(own: OwnKeeper, made: Sample) -> None:
    with pytest.raises(KeyboardInterrupt), held_meanwhile(own, made.id, "copying\n"):
        (lease,) = own.leases()
        assert (lease.kind, lease.reason) == ("process", "copying?")
        raise KeyboardInterrupt
    assert own.leases() == []


def test_who_may_not_hold_goes_on_without(made: Sample) -> None:
    class Refusing(OwnKeeper):
        def add(self, request: LeaseRequest) -> Lease:
            raise UsageError("no")

    went_on = []
    with held_meanwhile(Refusing(Path("/x"), Settings), made.id, "copying"):
        went_on.append(1)
    with held_meanwhile(None, made.id, "copying"):
        went_on.append(2)
    assert went_on == [1, 2]


@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink"])
def test_a_link_that_was_laid_out_holds_and_copies_do_not(
    tmp_path: Path, state: Path, own: OwnKeeper, made: Sample, mode: CheckoutMode
) -> None:
    dest, tree = tmp_path / "dest", state / "trees" / made.id
    context = Context({"HOME": str(tmp_path / "home")}, quiet=True)
    options = CheckoutOptions(mode=mode)
    lay_out(context, made.id, tree, dest, options, keeper=own)
    held = own.leases()
    if mode == "symlink":
        assert [(each.kind, each.subject) for each in held] == [("link", str(dest))]
        dest.unlink()
        dry = CheckoutOptions(mode=mode, dryrun=True)
        lay_out(context, made.id, tree, dest, dry, keeper=own)
    assert own.leases() == []


def test_while_it_is_laid_out_a_tree_is_held(
    tmp_path: Path,
    state: Path,
    own: OwnKeeper,
    made: Sample,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[str]] = []

    def look(*_: object) -> None:
        seen.append([each.describe() for each in own.leases()])
        raise KeyboardInterrupt

    monkeypatch.setattr("snapctl.laying_out.checkout", look)
    dest = tmp_path / "dest"
    with pytest.raises(KeyboardInterrupt):
        context = Context({}, quiet=True)
        tree = state / "trees" / made.id
        lay_out(context, made.id, tree, dest, CheckoutOptions(), keeper=own)
    assert seen == [[f"process {os.getpid()} (checkout to {dest})"]]


def test_a_link_that_can_not_hold_is_told_about(
    tmp_path: Path, own: OwnKeeper, made: Sample, capfd: pytest.CaptureFixture[str]
) -> None:
    hold_link(Context({}), own, made.id, tmp_path / "absent")
    said = capfd.readouterr().err
    assert "does not keep the snapshot" in said
    assert "hint: " in said


def test_paths_that_are_no_text_hold_too(
    tmp_path: Path, state: Path, own: OwnKeeper, made: Sample
) -> None:
    link = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    link.symlink_to(state / "trees" / made.id)
    hold_link(Context({}), own, made.id, link)
    assert [each.subject for each in Leases(state, now=lambda: 1.0).holding(made.id)] == [str(link)]
    assert json.dumps([each.to_json() for each in own.leases()])
