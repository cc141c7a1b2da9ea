from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from snapctl.exchange import Answer, NotHttpError, TruncatedError, exchange

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        theirs.settimeout(60)
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def answer(ends: Ends, raw: bytes, *, open_end: bool = False) -> Answer:
    ours, theirs = ends
    theirs.sendall(raw)
    if not open_end:
        theirs.shutdown(socket.SHUT_WR)
    return Answer(ours)


def test_a_request_is_one_document_or_none(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
    assert exchange(ours, "POST", "/v1/pulls", '{"id":"é"}').read() == b"{}"
    head, _, body = theirs.recv(1000).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/pulls HTTP/1.1\r\n")
    assert b"Content-Length: 11" in head
    assert body.decode() == '{"id":"é"}'


def test_a_body_of_known_length_needs_no_closing(ends: Ends) -> None:
    got = answer(ends, OK + b"content-length: 5\r\n\r\nhello and more", open_end=True)
    assert (got.status, got.reason, got.read()) == (200, "OK", b"hello")


def test_a_body_in_chunks_is_put_together(ends: Ends) -> None:
    chunks = b"5\r\nhello\r\n1A;x=y\r\n" + b"z" * 26 + b"\r\n0\r\nTrailer: 1\r\n\r\n"
    got = answer(ends, OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, open_end=True)
    assert got.read() == b"hello" + b"z" * 26


def test_lines_come_as_they_arrive_whatever_the_chunks(ends: Ends) -> None:
    _, theirs = ends
    got = answer(ends, OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n", open_end=True)
    assert got.readline() == b"a\n"
    theirs.sendall(b"4\r\nc\nde\r\n0\r\n\r\n")
    assert [got.readline() for _ in range(3)] == [b"bc\n", b"de", b""]


def test_a_body_without_a_length_ends_with_the_connection(ends: Ends) -> None:
    assert answer(ends, OK + b"\r\nall of it").read() == b"all of it"


def test_no_more_is_read_than_wanted(ends: Ends) -> None:
    assert answer(ends, OK + b"\r\n" + b"x" * 1000).read(10) == b"x" * 10


def test_interim_answers_are_passed_over(ends: Ends) -> None:
    got = answer(ends, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n\r\n", open_end=True)
    assert (got.status, got.read()) == (204, b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-nope\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"x" * 70_000 + b"\r\n",
        OK + b"A: b\r\n" * 30_000 + b"\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1_0\r\n\r\n0123456789",
        OK + b"Transfer-Encoding: chunked\r\n\r\nnope\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_told_apart(ends: Ends, raw: bytes) -> None:
    with pytest.raises(NotHttpError):
        answer(ends, raw).read()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_never_taken_for_whole(ends: Ends, raw: bytes) -> None:
    with pytest.raises(TruncatedError):
        answer(ends, raw).read()


def test_silence_is_the_timeout_of_the_socket(ends: Ends) -> None:
    got = answer(ends, OK + b"Content-Length: 5\r\n\r\nhe", open_end=True)
    ends[0].settimeout(0.01)
    with pytest.raises(TimeoutError):
        got.read()
