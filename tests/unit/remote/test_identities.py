"""What is so plain that the chain need not be asked, and what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from snapd.model.settings import StoreSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.identities import Keys, PlainIdentity, plain_identity

PLAIN = {
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_ENDPOINT_URL_S3": "http://host:9000",
}
S3 = "s3://bucket"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)


def found(settings: StoreSettings | None = None, uri: str = S3) -> PlainIdentity | None:
    return plain_identity(parse_store_uri(uri), settings or StoreSettings(uri))


async def test_keys_and_an_endpoint_are_enough() -> None:
    identity = found()
    assert identity is not None
    assert await identity.keys() == Keys("id", "secret", "")
    assert (identity.endpoint, identity.region, identity.ca_file) == ("http://host:9000", "", "")
    assert (identity.method, identity.role, identity.expires_at) == ("env", "", None)


async def test_everything_that_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-1")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/ca.pem")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    identity = found()
    assert identity is not None
    assert await identity.keys() == Keys("id", "secret", "token")
    assert (identity.endpoint, identity.region) == ("http://host:9000", "eu-south-1")
    assert identity.ca_file == "/ca.pem"
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    identity = found()
    assert identity is not None
    assert (identity.endpoint, identity.region) == ("http://general", "eu-north-1")


def test_the_endpoint_may_be_configured_or_googles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert found() is None
    assert found(StoreSettings(S3, endpoint_url="http://host")) is not None
    assert found(uri="gs://bucket") is not None


def test_an_anonymous_store_needs_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert found() is None
    assert found(StoreSettings(S3, anonymous=True)) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "lab"),
        ("AWS_DEFAULT_PROFILE", "lab"),
        ("AWS_CONFIG_FILE", "/etc/aws"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/etc/aws"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/"),
        ("AWS_CREDENTIAL_EXPIRATION", "2030-01-01T00:00:00Z"),
        ("AWS_SECURITY_TOKEN", "token"),
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ("AWS_SOMETHING_NEW", "1"),
        ("AWS_REGION", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ],
)
def test_any_other_variable_is_the_chains_business(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    assert found() is not None
    monkeypatch.setenv(name, value)
    assert found() is None


@pytest.mark.parametrize("name", ["config", "credentials"])
def test_a_file_of_configuration_is_the_chains_business(tmp_path: Path, name: str) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / name).touch()
    assert found() is None


def test_a_profile_is_the_chains_business() -> None:
    assert found(StoreSettings(S3, profile="lab")) is None


OPENING = """
import sys, anyio
from snapd.model.settings import StoreSettings, TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.opening import make_ready_for, open_store
from snapd.runtime.observer import SilentObserver

async def main():
    await make_ready_for([])
    uri = parse_store_uri("s3://bucket")
    async with open_store(uri, StoreSettings("s3://bucket"), TransferSettings(), SilentObserver()):
        print("botocore" in sys.modules)

anyio.run(main)
"""


@pytest.mark.parametrize(("region", "loaded"), [("eu-west-1", "False\n"), ("", "True\n")])
def test_a_plain_store_is_opened_without_the_libraries_of_aws(region: str, loaded: str) -> None:
    opened = subprocess.run(
        [sys.executable, "-c", OPENING],
        env={**os.environ, "AWS_REGION": region},
        capture_output=True,
        text=True,
        check=True,
    )
    assert opened.stdout == loaded
