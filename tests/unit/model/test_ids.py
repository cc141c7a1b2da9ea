from __future__ import annotations

import pytest

from snapd.model.errors import InvalidId
from snapd.model.ids import EMPTY_DIGEST, digest_of, is_digest, parse_snapshot_id

ID = "8a9e454135ddc483a0133c25b2f5dc722a8d7317fb429223a4129ea401e55d99"


@pytest.mark.parametrize("text", [ID, ID.upper(), f" {ID}\n"])
def test_an_id_is_read_in_any_case_and_trimmed(text: str) -> None:
    assert parse_snapshot_id(text) == ID


@pytest.mark.parametrize("text", ["", "latest", ID[:-1], f"{ID}0", f"{ID[:-1]}g", f"{ID[:-1]}١"])  # noqa: RUF001
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidId) as caught:
        parse_snapshot_id(text)
    assert repr(text) in caught.value.message


def test_a_long_text_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidId) as caught:
        parse_snapshot_id("x" * 10_000)
    assert len(caught.value.message) < 200
    assert "10000 characters" in caught.value.message


def test_a_digest_is_lowercase() -> None:
    assert is_digest(ID)
    assert not is_digest(ID.upper())
    assert not is_digest(f"{ID}\n")


def test_bytes_of_every_kind_hash_alike() -> None:
    assert digest_of(b"") == EMPTY_DIGEST
    assert digest_of(b"x") == digest_of(bytearray(b"x")) == digest_of(memoryview(b"x"))
    assert digest_of(b"x") == "3ae7d805f6789a6402acb70ad4096a85a56bf6804eaf25c0493ac697548d30b5"
