from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from snapctl.client import Client
from snapctl.context import Context
from snapctl.holding import DaemonKeeper
from snapctl.laying_out import describe_report, lay_out, read_manifest
from snapd.model.checkouts import CheckoutOptions, CheckoutReport
from snapd.model.errors import CacheUnusable, DangerousDestination, DigestMismatch
from tests.samples import Sample, sample
from tests.unit.snapctl.scripted import scripted_daemon

CACHE_DIRECTORIES = ("blobs", "manifests", "staging", "trees")


@pytest.fixture
def cached(tmp_path: Path) -> tuple[Sample, Path]:
    """A snapshot and its tree in a state directory."""
    made = sample({"a": b"hello", "d/b": b"other"})
    state = tmp_path / "state"
    tree = state / "trees" / made.id
    (tree / "d").mkdir(parents=True)
    (tree / "a").write_bytes(b"hello")
    (tree / "d" / "b").write_bytes(b"other")
    (state / "manifests").mkdir()
    (state / "manifests" / made.id).write_bytes(made.manifest.text)
    return made, tree


def test_a_tree_is_laid_out_and_told_about(
    tmp_path: Path, cached: tuple[Sample, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    made, tree = cached
    dest = tmp_path / "dest"
    context = Context({"HOME": str(tmp_path / "home")})
    report = lay_out(context, made.id, tree, dest, CheckoutOptions(mode="copy"))
    assert (dest / "d" / "b").read_bytes() == b"other"
    assert (report.files, report.mode) == (2, "copy")
    assert json.loads(json.dumps(report.to_json()))["destination"] == str(dest)
    assert "done: 2 files by copy" in capfd.readouterr().err


@pytest.mark.parametrize("where", ["state", "state/below", "store/below", "home", "."])
def test_cache_store_and_home_are_protected(
    tmp_path: Path, cached: tuple[Sample, Path], where: str
) -> None:
    made, tree = cached
    context = Context({"HOME": str(tmp_path / "home")}, quiet=True)
    store = f"file://{tmp_path / 'store'}"
    with pytest.raises(DangerousDestination):
        lay_out(context, made.id, tree, tmp_path / where, CheckoutOptions(), store=store)


@pytest.mark.parametrize("names", [(".manifests", ".objects"), CACHE_DIRECTORIES])
@pytest.mark.parametrize("where", ["other", "other/below", "."])
def test_a_store_or_a_cache_that_nobody_named_is_recognized(
    tmp_path: Path, cached: tuple[Sample, Path], names: tuple[str, ...], where: str
) -> None:
    made, tree = cached
    for name in names:
        (tmp_path / "volume" / "other" / name).mkdir(parents=True)
    context, dest = Context({}, quiet=True), tmp_path / "volume" / where
    with pytest.raises(DangerousDestination):
        lay_out(context, made.id, tree, dest, CheckoutOptions(delete=True))
    (tmp_path / "volume" / "other" / names[0]).rmdir()
    assert lay_out(context, made.id, tree, dest, CheckoutOptions(delete=True)).files == 2


def test_a_store_elsewhere_protects_nothing_here(
    tmp_path: Path, cached: tuple[Sample, Path]
) -> None:
    made, tree = cached
    context = Context({}, quiet=True)
    lay_out(context, made.id, tree, tmp_path / "d", CheckoutOptions(), store="s3://b/p")
    assert sorted(os.listdir(tmp_path / "d")) == ["a", "d"]


def test_a_manifest_that_is_gone_or_damaged(cached: tuple[Sample, Path]) -> None:
    made, tree = cached
    state = tree.parents[1]
    assert read_manifest(state, made.id).id == made.id
    (state / "manifests" / made.id).write_bytes(b"other")
    with pytest.raises(DigestMismatch):
        read_manifest(state, made.id)
    (state / "manifests" / made.id).unlink()
    with pytest.raises(CacheUnusable, match=made.id):
        read_manifest(state, made.id)


def test_reports_in_words() -> None:
    made = sample({"a": b""})
    report = CheckoutReport(made.id, Path("/d"), "reflink", files=9, kept=2, deleted=("./x",))
    assert describe_report(report) == (
        "done: 9 files by reflink at /d, 2 were right already, 1 deleted"
    )
    preview = CheckoutReport(made.id, Path("/d"), "auto", dryrun=True, deleted=("./x", "./y"))
    assert describe_report(preview) == "would change 0 and delete 2 entries"


def test_where_only_the_trees_are_seen_the_keeper_has_the_manifest(
    tmp_path: Path, cached: tuple[Sample, Path]
) -> None:
    made, tree = cached
    mapped = tmp_path / "mapped"
    (tree.parent).rename(mapped)
    at, context = tmp_path / "s", Context({}, quiet=True)
    sent = {
        ("GET", f"/v1/snapshots/{made.id}/manifest"): lambda it: it.reply(200, made.manifest.text)
    }
    with scripted_daemon(at, sent):
        keeper = DaemonKeeper(Client([str(at)]))
        dest = tmp_path / "dest"
        options = CheckoutOptions(mode="copy")
        assert lay_out(context, made.id, mapped / made.id, dest, options, keeper=keeper).files == 2
        with pytest.raises(DangerousDestination):
            lay_out(context, made.id, mapped / made.id, mapped / "x", options, keeper=keeper)
    with scripted_daemon(tmp_path / "other", {}), pytest.raises(CacheUnusable, match="manifest"):
        keeper = DaemonKeeper(Client([str(tmp_path / "other")]))
        lay_out(context, made.id, mapped / made.id, dest, options, keeper=keeper)


def test_a_tree_that_is_not_mounted_is_named(tmp_path: Path, cached: tuple[Sample, Path]) -> None:
    made, _ = cached
    with pytest.raises(CacheUnusable, match="/nowhere") as caught:
        context = Context({}, quiet=True)
        lay_out(context, made.id, Path("/nowhere") / made.id, tmp_path / "d", CheckoutOptions())
    assert "SNAPSYNC_TREES" in caught.value.hint
