"""What came of an exchange: its status and its headers."""

from __future__ import annotations

import pytest

from snapd.remote.exchanges import Origin, Reply, status_of


def test_the_status_is_that_of_the_last_answer() -> None:
    head = [b"HTTP/1.1 100 Continue\r\n", b"\r\n", b"HTTP/1.1 206 Partial\r\n", b"ETag: x\r\n"]
    assert status_of(head) == 206
    assert status_of([]) == 0
    assert Reply(head=head).header("etag") == "x"
    assert Reply(head=head).header("content-length") == ""


@pytest.mark.parametrize("line", [b"HTTP/x: y\r\n", b"HTTP/1.1 999: z\r\n", b"HTTP/1.1\r\n"])
def test_a_header_that_looks_like_a_status_is_none(line: bytes) -> None:
    assert status_of([b"HTTP/1.1 206 Partial\r\n", line]) == 206
    assert status_of([line]) == 0


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 204\r\n", b"HTTP/1.0 204 Fine\r\n", b"HTTP/2 204 \r\n"]
)
def test_a_status_may_come_without_a_reason(line: bytes) -> None:
    assert status_of([line]) == 204


@pytest.mark.parametrize(
    ("reply", "ok"),
    [
        (Reply(status=200), True),
        (Reply(status=206), True),
        (Reply(status=304), False),
        (Reply(status=200, curl_code=18), False),
        (Reply(status=200, error=ValueError()), False),
        (Reply(), False),
    ],
)
def test_ok_is_a_whole_good_answer(reply: Reply, ok: bool) -> None:
    assert reply.ok is ok


def test_an_origin_does_not_print_its_secrets() -> None:
    printed = repr(Origin("http://host", "region", "id", "hidden-key", "hidden-token"))
    assert "hidden" not in printed
