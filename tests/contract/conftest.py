"""Fixtures of the contract suite: one place a parameter, and a handle to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from snapd.remote.base import RemoteStore
from tests.contract.places import PLACES, Place


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[RemoteStore]:
    async with place.open() as opened:
        yield opened


@pytest.fixture
async def missing(place: Place) -> AsyncIterator[RemoteStore]:
    async with place.open_missing() as opened:
        yield opened
