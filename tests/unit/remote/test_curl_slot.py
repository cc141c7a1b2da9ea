"""What a handle says of the bodies that it sends."""

from __future__ import annotations

import pytest

from snapd.model.settings import TransferSettings
from snapd.remote.curl_slot import UNSIGNED_PAYLOAD, Slot
from snapd.remote.exchanges import Method, Origin, Request


@pytest.mark.parametrize(
    ("method", "url", "key", "unsigned"),
    [
        ("PUT", "https://host/bucket", "key", True),
        ("PUT", "http://host/bucket", "key", False),
        ("PUT", "https://host/bucket", "", False),
        ("POST", "https://host/bucket", "key", False),
        ("GET", "https://host/bucket", "key", False),
    ],
)
def test_only_tls_stands_in_for_the_signature_of_a_body(
    method: Method, url: str, key: str, unsigned: bool
) -> None:
    slot = Slot(method, TransferSettings())
    lines = slot._header_lines(Request(method, "/x"), Origin(url, "r", access_key=key))
    assert (UNSIGNED_PAYLOAD in lines) == unsigned
    slot.close()


def test_a_store_that_wants_bodies_signed_gets_them_signed() -> None:
    slot = Slot("PUT", TransferSettings())
    origin = Origin("https://host/bucket", "r", access_key="key", signs_bodies=True)
    assert UNSIGNED_PAYLOAD not in slot._header_lines(Request("PUT", "/x"), origin)
    slot.close()
