"""Fixtures of the contract suite: one place a parameter, and a handle to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from snapd.remote.base import RemoteStore
from tests.contract.places import PLACES, Place
from tests.contract.s3_places import S3_PLACES

ALL_PLACES = PLACES | S3_PLACES


@pytest.fixture(params=sorted(ALL_PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    return ALL_PLACES[request.param](request)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[RemoteStore]:
    async with place.open() as opened:
        yield opened


@pytest.fixture
async def missing(place: Place) -> AsyncIterator[RemoteStore]:
    async with place.open_missing() as opened:
        yield opened
