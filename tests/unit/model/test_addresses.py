from __future__ import annotations

import pytest

from snapd.model.addresses import is_loopback, is_plain_host, parse_listen
from snapd.model.errors import InvalidConfig


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:9477", ("127.0.0.1", 9477)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("", 80)),
        ("node.example:1", ("node.example", 1)),
    ],
)
def test_an_address_to_listen_at(text: str, parsed: tuple[str, int]) -> None:
    assert parse_listen(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "9477", "host:", "::1:80", "host:70000", "host:-1", "h:\uff18"]
)
def test_no_address_to_listen_at(text: str) -> None:
    with pytest.raises(InvalidConfig, match="listen"):
        parse_listen(text)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"])
def test_only_this_host_reaches_loopback(listen: str) -> None:
    assert is_loopback(listen)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", ":1", "[::]:1", "10.0.0.1:1", "node.example:1", "localhost.evil:1"]
)
def test_everything_else_may_be_reached_from_outside(listen: str) -> None:
    assert not is_loopback(listen)


@pytest.mark.parametrize(
    "header", ["localhost", "localhost:9477", "127.0.0.1:9477", "10.1.2.3", "[::1]:1", "[fe80::1]"]
)
def test_an_address_in_a_request_is_plain(header: str) -> None:
    assert is_plain_host(header)


@pytest.mark.parametrize(
    "header", ["", "evil.example", "evil.example:9477", "127.0.0.1.evil.example", "localhost.x:1"]
)
def test_a_name_in_a_request_may_be_bent(header: str) -> None:
    assert not is_plain_host(header)
