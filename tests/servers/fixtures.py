"""Fixtures of the real servers; `tests/conftest.py` loads them as a plugin."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.servers.faultproxy import FaultProxy
from tests.servers.seaweed import Seaweed, running_seaweed


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Give a real S3 server, one for each test process, started when the first test asks."""
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_bucket(seaweed: Seaweed) -> str:
    """Give the one bucket that tests share; each keeps to a prefix of its own."""
    return seaweed.make_bucket("shared")


_numbers = itertools.count()


@pytest.fixture
def s3_prefix(seaweed_bucket: str) -> Callable[[], str]:
    """Give a maker of unused store URIs: `s3://shared/<n>`."""
    return lambda: f"s3://{seaweed_bucket}/prefix {next(_numbers)}=a+b"


@pytest.fixture
def fault_proxy(seaweed: Seaweed) -> Iterator[FaultProxy]:
    """Give a proxy in front of the server that behaves until its `plan` is told otherwise."""
    with FaultProxy.running(seaweed.endpoint_url) as proxy:
        yield proxy
