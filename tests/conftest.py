"""Fixtures that every kind of test may use."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

pytest_plugins = ["tests.servers.fixtures"]


def pytest_configure(config: pytest.Config) -> None:
    """Make every run alike: what Ctrl-C does, and what Hypothesis tries; let no process idle.

    The usual way hands out hundreds of tests at once, so that one process gets all the long ones,
    which stand side by side, and the others end long before it. Here they take some of its share.

    Ctrl-C is heard even where a shell started the tests in the background, which ignores it.
    Commands that the tests start inherit that, and several tests are about what Ctrl-C does.
    """
    if config.getoption("dist", "no") == "load":
        config.option.dist = "worksteal"
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The same examples in every run, and however long a busy machine takes for one of them; what
    # looks further says so itself.
    hypothesis.settings.register_profile(
        "every run",
        deadline=None,
        derandomize=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("every run")


@pytest.fixture(params=["asyncio", "asyncio+uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Run each async test on the standard loop and on uvloop, as the daemon does."""
    return ("asyncio", {"use_uvloop": request.param == "asyncio+uvloop"})


@pytest.fixture
def event_loop_never_blocks() -> Iterator[None]:
    """Make a blocking call on an event loop an error; calls in worker threads are free."""
    with blockbuster_ctx():
        yield
