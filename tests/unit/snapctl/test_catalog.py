from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from snapctl import catalog as module
from snapctl.catalog import Catalog, PushRecord, record_here
from snapctl.context import Context
from snapctl.output import Output
from snapd.disk.catalog import OwnRecord
from snapd.disk.pushed import Pushed, PushedSnapshots
from snapd.model.errors import InvalidName, StoreUnreachable
from snapd.registry.documents import Documents
from snapd.registry.pushes import Pushes
from snapd.remote.base import ObjectInfo
from snapd.remote.memory import MemoryStore
from tests.unit.model.registering import snapshot

STORE = "memory://store"


def context_of(tmp_path: Path, **environment: str) -> Context:
    context = Context(environment={"HOME": str(tmp_path), **environment})
    context.__dict__["output"] = Output(io.StringIO(), io.StringIO())
    return context


def noted(context: Context) -> str:
    stderr = context.output.stderr
    assert isinstance(stderr, io.StringIO)
    return stderr.getvalue()


def test_which_record_is_meant(tmp_path: Path) -> None:
    plain = context_of(tmp_path)
    own = tmp_path / ".local/state/snapsync/catalog"
    assert Catalog.chosen(plain, None) == Catalog(is_off=False, path=own / "default.jsonl")
    assert Catalog.chosen(plain, "other") == Catalog(is_off=False, path=own / "other.jsonl")
    assert Catalog.chosen(plain, "/x/y") == Catalog(is_off=False, path=Path("/x/y"))
    assert Catalog.chosen(plain, "./y").path == Path.cwd() / "y"
    for off in ("", "none"):
        assert Catalog.chosen(plain, off).is_off
        assert Catalog.chosen(context_of(tmp_path, SNAPSYNC_CATALOG=off), None).is_off
    by_variable = context_of(tmp_path, SNAPSYNC_CATALOG="/a/b", XDG_STATE_HOME="/s")
    assert Catalog.chosen(by_variable, None).path == Path("/a/b")
    assert Catalog.chosen(by_variable, "x").path == Path("/s/snapsync/catalog/x.jsonl")
    assert Catalog.chosen(Context(environment={}), None) == Catalog(is_off=False, path=None)
    with pytest.raises(InvalidName):
        Catalog.chosen(plain, "a b")


def test_the_parent_is_named_or_was_pushed_from_the_same_directory(tmp_path: Path) -> None:
    pushed = tmp_path / "pushed"
    source = (pushed, tmp_path / "data")
    on = Catalog(is_off=False, path=None)
    a, b = snapshot("a"), snapshot("b")
    assert PushRecord.of(on, STORE, "ann", named_parent=None, source=source).parent_id is None
    PushedSnapshots(pushed).remember(str(tmp_path / "data"), STORE, Pushed(a))
    assert PushRecord.of(on, STORE, "ann", named_parent=None, source=source).parent_id == a
    assert PushRecord.of(on, STORE, "ann", named_parent=b, source=source).parent_id == b
    elsewhere = (None, tmp_path / "data")
    assert PushRecord.of(on, STORE, "ann", named_parent=None, source=elsewhere).parent_id is None


async def test_a_push_is_recorded_in_the_store_and_here(tmp_path: Path) -> None:
    context, store = context_of(tmp_path), MemoryStore(STORE)
    chosen = Catalog.chosen(context, None)
    record = PushRecord(chosen, STORE, "ann@host", snapshot("a"))
    await record.write(context, store, snapshot("b"))
    [told], _ = await Pushes(Documents(store)).told_of(snapshot("b"), 5)
    assert (told.location, told.parent_id, told.by) == (STORE, snapshot("a"), "ann@host")
    assert chosen.path
    [here] = OwnRecord(chosen.path).pushes()
    assert (here.at_ms, here.snapshot_id) == (told.at_ms, told.snapshot_id)
    off = PushRecord(Catalog(is_off=True, path=None), STORE, "ann@host", None)
    await off.write(context, store, snapshot("c"))
    assert await Pushes(Documents(store)).told_of(snapshot("c"), 5) == ([], False)
    assert noted(context) == ""


class _Broken(MemoryStore):
    """Says nothing at all when listed, or says that it can't be reached."""

    hangs = False

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        if self.hangs:
            await anyio.sleep_forever()
        if prefix:
            raise StoreUnreachable(f"no route to {prefix}")
        yield ObjectInfo(prefix, 0)


@pytest.mark.parametrize("hangs", [False, True])
async def test_what_can_not_be_recorded_there_is_recorded_here(
    tmp_path: Path, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)
    context, store = context_of(tmp_path), _Broken(STORE)
    store.hangs = hangs
    chosen = Catalog.chosen(context, None)
    await PushRecord(chosen, STORE, "ann@host", None).write(context, store, snapshot("b"))
    [line] = noted(context).splitlines()
    assert line.startswith("the push is done, but not recorded in the store")
    assert chosen.path
    assert len(OwnRecord(chosen.path).pushes()) == 1


def test_what_can_not_be_recorded_here_is_said(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    (tmp_path / "file").write_text("text")
    chosen = Catalog(is_off=False, path=tmp_path / "file" / "below")
    record_here(context, chosen, "/data", snapshot("a"), "ann@host")
    [line] = noted(context).splitlines()
    assert line.startswith("not recorded here: ")
