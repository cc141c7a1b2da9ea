"""Fixtures of the crash tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.living import Living
from tests.crash.nursery import Nursery, open_nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Give the process that daemons and commands are forked from."""
    with open_nursery() as opened:
        yield opened


@pytest.fixture
def forked(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what lives and dies be forked, for tests of many lives; see `tests/crash/nursery.py`."""
    monkeypatch.setattr(Living, "nursery", nursery)
