"""The contract's places in a real S3 server: over HTTP by path, over HTTPS, wrapped as opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from snapd.model.settings import StoreSettings, TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.base import RemoteStore
from snapd.remote.opening import open_store
from snapd.remote.s3 import open_s3
from snapd.runtime.observer import SilentObserver
from tests.contract.places import Opener, Place
from tests.servers.seaweed import Seaweed

TRANSFER = TransferSettings(backoff_base_seconds=0.0)
PATIENT = TransferSettings(attempts_max=12, backoff_max_seconds=2.0)
"""For whoever retries: a busy machine has the server lose sight of its own volumes for seconds, in
which it answers 500. Tries without a pause would all fall into that."""


def s3_http(request: pytest.FixtureRequest) -> Place:
    return _place(request, https=False, opener=_backend)


def s3_https(request: pytest.FixtureRequest) -> Place:
    return _place(request, https=True, opener=_backend)


def s3_wrapped(request: pytest.FixtureRequest) -> Place:
    return _place(request, https=False, opener=_wrapped)


S3_PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "s3-http": s3_http,
    "s3-https": s3_https,
    "s3-wrapped": s3_wrapped,
}


def _place(
    request: pytest.FixtureRequest, *, https: bool, opener: Callable[[StoreSettings], Opener]
) -> Place:
    server: Seaweed = request.getfixturevalue("seaweed")
    unused_uri: Callable[[], str] = request.getfixturevalue("s3_prefix")
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in server.environment().items():
        patch.setenv(name, value)
    endpoint = server.https_endpoint_url if https else server.endpoint_url
    ca_file = str(server.ca_file)
    return Place(
        *(
            opener(StoreSettings(uri, endpoint_url=endpoint, ca_file=ca_file))
            for uri in (unused_uri(), "s3://no-such-bucket/prefix")
        )
    )


def _backend(settings: StoreSettings) -> Opener:
    @asynccontextmanager
    async def opened() -> AsyncIterator[RemoteStore]:
        uri = parse_store_uri(settings.uri)
        async with open_s3(uri, settings, TRANSFER, SilentObserver()) as store:
            yield store

    return opened


def _wrapped(settings: StoreSettings) -> Opener:
    @asynccontextmanager
    async def opened() -> AsyncIterator[RemoteStore]:
        uri = parse_store_uri(settings.uri)
        async with open_store(uri, settings, PATIENT, SilentObserver()) as store:
            yield store

    return opened
