"""Fixtures that every kind of test may use."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.servers.fixtures"]


@pytest.fixture(params=["asyncio", "asyncio+uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Run each async test on the standard loop and on uvloop, as the daemon does."""
    return ("asyncio", {"use_uvloop": request.param == "asyncio+uvloop"})
