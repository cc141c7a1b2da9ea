"""Our signatures are those of botocore, to the letter."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from snapd.remote.exchanges import Origin
from snapd.remote.signing import Signer, Signers

KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOON = 1_700_000_000.7


def expected(origin: Origin, target: str, at: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    moment = datetime.fromtimestamp(int(at), UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
    request = AWSRequest("GET", origin.base_url + target)
    credentials = Credentials(origin.access_key, origin.secret_key, origin.token or None)
    S3SigV4Auth(credentials, "s3", origin.region).add_auth(request)
    return sorted(f"{name.lower()}: {value}" for name, value in request.headers.items())


def ours(signer: Signer | None, target: str) -> list[str]:
    assert signer is not None
    lines = [line.split(":", 1) for line in signer.headers(target)]
    return sorted(f"{name.lower()}: {value.strip()}" for name, value in lines)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8333/bucket",
        "https://bucket.s3.eu-central-1.amazonaws.com",
        "https://store.example:443/some.bucket",
        "http://store.example:80/b",
        "https://store.example:80",
    ],
)
@pytest.mark.parametrize("token", ["", "FwoGZXIvYXdzEJr//////////wE="])
def test_a_signature_is_what_botocore_makes_of_it(
    base_url: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Origin(base_url, "eu-central-1", *KEYS, token)
    signer = Signer.of(origin, lambda: NOON)
    for target in ("/.objects/49d/c87/0df", "/" + quote("a b/ü+~_-.", safe="/")):
        assert ours(signer, target) == expected(origin, target, NOON, monkeypatch)


def test_the_moment_is_that_of_each_request_and_the_key_that_of_its_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = NOON
    origin = Origin("http://127.0.0.1:1/b", "us-east-1", *KEYS)
    signer = Signer.of(origin, lambda: now)
    for now in (NOON, NOON + 0.1, NOON + 1, NOON + 86400, NOON - 86400):
        assert ours(signer, "/x") == expected(origin, "/x", now, monkeypatch)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://STORE.example/b",
        "http://[::1]:9000/b",
        "http://user@store.example/b",
        "http://bücher.example/b",
        "http://store.example/b?x=1",
    ],
)
def test_what_may_be_sent_otherwise_than_it_is_written_is_left_to_libcurl(base_url: str) -> None:
    assert Signer.of(Origin(base_url, "r", *KEYS), lambda: NOON) is None


def test_nothing_is_signed_for_nobody() -> None:
    assert Signer.of(Origin("http://store.example/b", "r"), lambda: NOON) is None


def test_another_origin_has_another_signer() -> None:
    first, second = (Origin(f"http://store.example/{name}", "r", *KEYS) for name in "ab")
    signers = Signers(lambda: NOON)
    assert signers.of(first) is signers.of(first)
    assert ours(signers.of(first), "/x") != ours(signers.of(second), "/x")
    assert ours(signers.of(first), "/x") == ours(Signer.of(first, lambda: NOON), "/x")
