"""What S3 and libcurl say, translated; the common ones are met for real in test_s3."""

from __future__ import annotations

import pycurl
import pytest

from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    ConnectionLost,
    KeyMissing,
    NoSpace,
    SnapsyncError,
    Stalled,
    StoreFailing,
    TlsFailed,
)
from snapd.remote.exchanges import Reply
from snapd.remote.s3_errors import code_of, error_of, is_expired, moved_to

ENDPOINT = "https://endpoint"


def said(status: int, code: str, more: str = "") -> Reply:
    body = f"<Error><Code>{code}</Code><Message>why</Message>{more}</Error>"
    return Reply(status=status, body=body.encode())


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (said(403, "RequestTimeTooSkewed"), AccessDenied),
        (said(400, "BadDigest"), StoreFailing),
        (said(400, "IncompleteBody"), ConnectionLost),
        (said(404, "NoSuchUpload"), ActionFailed),
        (said(405, "MethodNotAllowed"), ActionFailed),
        (Reply(status=401), AccessDenied),
        (Reply(status=408), Stalled),
        (Reply(status=599), StoreFailing),
        (Reply(curl_code=pycurl.E_SSL_CACERT_BADFILE), TlsFailed),
        (Reply(curl_code=pycurl.E_GOT_NOTHING), ConnectionLost),
        (Reply(curl_code=8), StoreFailing),
        (Reply(curl_code=pycurl.E_COULDNT_CONNECT, curl_message="Connection timed out"), Stalled),
    ],
)
def test_kinds(reply: Reply, kind: type[SnapsyncError]) -> None:
    error = error_of(reply, "s3://b/k", ENDPOINT)
    assert type(error) is kind
    assert error.message.startswith("s3://b/k: ")
    assert ENDPOINT in error.message


def test_an_error_of_our_own_side_comes_first() -> None:
    error = NoSpace("full")
    assert error_of(Reply(status=200, curl_code=23, error=error), "s3://b/k", ENDPOINT) is error


def test_the_size_behind_a_range_comes_from_the_header_or_the_body() -> None:
    told = said(416, "InvalidRange", "<ActualObjectSize>12</ActualObjectSize>")
    for reply in (told, Reply(status=416, head=[b"Content-Range: bytes */12\r\n"])):
        error = error_of(reply, "s3://b/k", ENDPOINT)
        assert isinstance(error, KeyMissing)
        assert error.details["size_bytes"] == 12
    assert "size_bytes" not in error_of(Reply(status=416), "s3://b/k", ENDPOINT).details


def test_codes() -> None:
    assert code_of(said(400, "ExpiredToken")) == "ExpiredToken"
    assert code_of(Reply(status=400, body=b"<html>")) == ""
    assert is_expired(said(400, "ExpiredToken"))
    assert not is_expired(said(200, "ExpiredToken"))
    head = [b"x-amz-bucket-region: eu-west-1\r\n"]
    assert moved_to(Reply(status=301, head=head)) == "eu-west-1"
    assert moved_to(Reply(status=200, head=head)) == ""
