"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.forked import Forking, forking
from tests.e2e.installed import Host
from tests.samples import Sample, sample
from tests.servers.seaweed import Seaweed


@pytest.fixture(scope="session")
def forking_process() -> Iterator[Forking]:
    """Give the process that commands are forked from."""
    with forking() as process:
        yield process


@pytest.fixture
def forked_commands(forking_process: Forking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Host.snapctl` fork, for tests of many commands; see `tests/e2e/forked.py`."""
    monkeypatch.setattr(Host, "forking", forking_process)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Give a user without any cloud identity."""
    return Host(tmp_path / "host")


@pytest.fixture
def cloud_host(tmp_path: Path, seaweed: Seaweed) -> Host:
    """Give a user who may use the real S3 server."""
    return Host(
        tmp_path / "host",
        {
            **seaweed.environment(),
            # The reference tool has a variable of its own for the endpoint.
            "SNAPDIR_S3_STORE_ENDPOINT_URL": seaweed.endpoint_url,
        },
    )


@pytest.fixture
def s3_store(seaweed_bucket: str, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Give a maker of store URIs that only this test uses."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return lambda: f"s3://{seaweed_bucket}/e2e/{name}"


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Sample:
    """Give the snapshot of the files that the test's module lists as `FILES`."""
    return sample(request.module.FILES)


@pytest.fixture
def store(made: Sample, tmp_path: Path) -> str:
    """Give a store in a directory that holds that snapshot."""
    root = tmp_path / "store"
    for key, data in made.keys().items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    return f"file://{root}"


@pytest.fixture
def file_store(tmp_path: Path) -> str:
    """Give the URI of a directory that becomes a store."""
    return f"file://{tmp_path}/store"
