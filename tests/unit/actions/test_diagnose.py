from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from snapd.actions import diagnose as module
from snapd.actions.diagnose import diagnose, stores_to_ask
from snapd.disk.cache import open_cache
from snapd.model.checks import Check
from snapd.model.errors import AccessDenied, StoreFailing
from snapd.model.settings import CacheSettings, DaemonSettings, Settings, StoreSettings
from snapd.model.uris import StoreUri
from snapd.remote.examining import Examination


def settings(*allowed: str, sections: tuple[str, ...] = ()) -> Settings:
    return Settings(
        daemon=DaemonSettings(stores=allowed),
        cache=CacheSettings(min_free_bytes=1),
        stores=tuple(map(StoreSettings, sections)),
    )


async def found(tmp_path: Path, wanted: Settings) -> dict[str, Check]:
    async def examine(uri: StoreUri) -> Examination:
        if uri.bucket == "hangs":
            await anyio.sleep_forever()
        if uri.bucket == "raises":
            raise StoreFailing("it fails")
        if uri.bucket == "denied":
            return Examination(AccessDenied("no"), "http://s3", "AKIA…1234 (env)", None, -1000.0)
        return Examination(None, "http://s3", "AKIA…1234 (env)", 5000.0, 0.5)

    with open_cache(tmp_path, now=time.time) as cache:
        checks = await diagnose(wanted, cache, examine, lambda: 1000.0)
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


async def test_every_part_has_its_line(tmp_path: Path) -> None:
    checks = await found(tmp_path, settings("s3://good/x", "s3://denied"))
    assert {name: check.verdict for name, check in checks.items()} | {"open files": "ok"} == {
        "versions": "ok",
        "user": "ok",
        "disk": "ok",
        "file system": "ok",
        "features": "ok",
        "repairs": "ok",
        "open files": "ok",
        "stores": "ok",
        "store:s3://good/x": "ok",
        "credentials:s3://good/x": "ok",
        "clock:s3://good/x": "ok",
        "store:s3://denied": "failure",
        "credentials:s3://denied": "ok",
        "clock:s3://denied": "failure",
    } | {name: check.verdict for name, check in checks.items() if name == "inodes"}
    assert "hard links work" in checks["features"].message
    assert checks["store:s3://denied"].exit_code == 15
    assert "expires in 1h" in checks["credentials:s3://good/x"].message


async def test_a_store_that_hangs_or_fails_is_one_line_and_keeps_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_SECONDS", 0.05)
    with anyio.fail_after(60):
        checks = await found(tmp_path, settings("s3://hangs", "s3://raises", "s3://good"))
    assert checks["store:s3://hangs"].details["code"] == "timed_out"
    assert checks["store:s3://raises"].details["code"] == "store_failing"
    assert checks["store:s3://good"].verdict == "ok"


async def test_damage_that_waits_is_told(tmp_path: Path) -> None:
    with open_cache(tmp_path, now=time.time):
        pass
    (tmp_path / "repairs" / f"{'a' * 64}.644").touch()
    checks = await found(tmp_path, settings("s3://good"))
    assert (checks["repairs"].verdict, checks["repairs"].details) == ("warning", {"pending": 1})


def test_which_stores_are_asked() -> None:
    stores, (said,) = stores_to_ask(settings())
    assert (stores, said.verdict) == ([], "warning")
    stores, (said,) = stores_to_ask(settings("*", sections=("s3://a", "s3://b/c")))
    assert (list(map(str, stores)), said.verdict) == (["s3://a", "s3://b/c"], "ok")
    stores, (said,) = stores_to_ask(settings("s3://a", "s3://a/", "file:///x"))
    assert list(map(str, stores)) == ["s3://a", "file:///x"]


async def test_more_stores_than_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORES_MAX", 2)
    with open_cache(tmp_path, now=time.time) as cache:

        async def examine(uri: StoreUri) -> Examination:
            return Examination(endpoint=str(uri))

        wanted = settings("s3://aaa", "s3://bbb", "s3://ccc")
        checks = await diagnose(wanted, cache, examine, lambda: 1000.0)
    assert [check.name for check in checks if check.name.startswith("store:")] == [
        "store:s3://aaa",
        "store:s3://bbb",
    ]
    assert any("1 more stores" in check.message for check in checks)
