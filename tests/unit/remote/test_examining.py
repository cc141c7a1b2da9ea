from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapd.model.errors import AccessDenied, CredentialsMissing, StoreMissing
from snapd.model.settings import StoreSettings, TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.examining import Examination, examine
from snapd.remote.lanes import open_lanes
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.seaweed import Seaweed

TRANSFER = TransferSettings(workers=0)


@pytest.fixture(autouse=True)
def environment(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


async def look(
    uri: str,
    *,
    now: Callable[[], float] = time.time,
    endpoint_url: str = "",
    anonymous: bool = False,
) -> Examination:
    chosen = StoreSettings(uri, endpoint_url=endpoint_url, anonymous=anonymous)
    async with open_lanes(TRANSFER) as lanes:
        return await examine(parse_store_uri(uri), chosen, TRANSFER, lanes, now=now)


async def test_a_bucket_that_may_be_read(seaweed: Seaweed, seaweed_bucket: str) -> None:
    found = await look(f"s3://{seaweed_bucket}/some/prefix")
    assert found.error is None
    assert found.endpoint == f"{seaweed.endpoint_url}/{seaweed_bucket}"
    assert found.identity == "snap…tkey (env)"
    assert found.expires_at is None
    assert found.skew_seconds is not None
    assert abs(found.skew_seconds) < 30


async def test_a_clock_that_is_wrong(seaweed_bucket: str) -> None:
    found = await look(f"s3://{seaweed_bucket}", now=lambda: time.time() + 1000)
    assert found.skew_seconds is not None
    assert abs(found.skew_seconds - 1000) < 30


async def test_a_bucket_that_is_not_there() -> None:
    assert isinstance((await look("s3://no-such-bucket/x")).error, StoreMissing)


async def test_a_key_that_is_wrong(seaweed_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the right one")
    found = await look(f"s3://{seaweed_bucket}")
    assert isinstance(found.error, AccessDenied)
    assert found.identity == "snap…tkey (env)"


async def test_no_key_at_all(seaweed_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    found = await look(f"s3://{seaweed_bucket}")
    assert isinstance(found.error, CredentialsMissing)
    anonymous = await look(f"s3://{seaweed_bucket}", anonymous=True)
    assert isinstance(anonymous.error, AccessDenied)
    assert anonymous.identity == "anonymous"


async def test_whoever_may_read_but_not_list_is_fine(
    fault_proxy: FaultProxy, seaweed_bucket: str
) -> None:
    denied = Fault("answer", path="list-type", times=None, status=403, code="AccessDenied")
    fault_proxy.plan(denied)
    found = await look(f"s3://{seaweed_bucket}/p", endpoint_url=fault_proxy.url)
    assert found.error is None


async def test_directories(tmp_path: Path) -> None:
    assert (await look(f"file://{tmp_path}")).error is None
    assert isinstance((await look(f"file://{tmp_path}/absent")).error, StoreMissing)
    (tmp_path / "file").touch()
    assert isinstance((await look(f"file://{tmp_path}/file")).error, StoreMissing)
