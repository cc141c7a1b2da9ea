"""Dangerous destinations, as a rule on resolved paths."""

from __future__ import annotations

from pathlib import PurePosixPath as P

import pytest

from snapd.model.errors import DangerousDestination
from snapd.model.protection import ProtectedPlace, refuse_dangerous

PLACES = (
    ProtectedPlace(P("/var/cache/snap"), "a cache"),
    ProtectedPlace(P("/home/ada"), "the home directory", below_allowed=True),
)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/var",
        "/var/cache",
        "/var/cache/snap",
        "/var/cache/snap/trees/x",
        "/home",
        "/home/ada",
    ],
)
def test_refused(path: str) -> None:
    with pytest.raises(DangerousDestination, match=path) as caught:
        refuse_dangerous(P(path), PLACES)
    assert caught.value.details["destination"] == path


@pytest.mark.parametrize(
    "path", ["/home/ada/data", "/home/ad", "/var/cache/snap2", "/var/cache/other", "/data"]
)
def test_allowed(path: str) -> None:
    refuse_dangerous(P(path), PLACES)


def test_the_message_says_how_they_touch() -> None:
    for path, said in (
        ("/var/cache", "holds /var/cache/snap, which is a cache"),
        ("/var/cache/snap/x", "lies in /var/cache/snap, which is a cache"),
        ("/home/ada", "is the home directory"),
    ):
        with pytest.raises(DangerousDestination, match=said):
            refuse_dangerous(P(path), PLACES)
