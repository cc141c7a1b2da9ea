from __future__ import annotations

import pytest

from snapd.actions.rehash import RehashSink
from snapd.model.errors import DigestMismatch
from snapd.model.ids import digest_of


def test_a_body_is_compared_with_its_digest_whatever_an_earlier_attempt_brought() -> None:
    sink = RehashSink(digest_of(b"right"), "./a", "memory://store")
    sink.start()
    sink.write(b"half")
    sink.start()
    sink.write(b"ri")
    sink.write(memoryview(b"ght"))
    sink.finish()


def test_wrong_bytes_are_named_with_object_path_and_store() -> None:
    digest = digest_of(b"right")
    sink = RehashSink(digest, "./a", "memory://store")
    sink.start()
    sink.write(b"wrong")
    with pytest.raises(DigestMismatch, match=r"\./a in memory://store") as caught:
        sink.finish()
    assert caught.value.details["object"] == digest
    assert caught.value.details["actual"] == digest_of(b"wrong")
