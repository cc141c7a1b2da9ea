from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snapd.model.errors import SnapsyncError, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.receipts import Attestation, Receipt, Share, Span, format_moment, parse_moment

ID = SnapshotId("ab" * 32)
RECEIPT = Receipt(
    snapshot_id=ID,
    store="s3://bucket/prefix",
    pulled_at=1767225600.25,
    version="1.2.3",
    host="node7",
    files=5,
    directories=2,
    size_bytes=500,
    verified=Share(3, 300),
    cached=Share(1, 100),
    cached_when=Span(1767139200.0, 1767142800.5, 0),
)
DOCUMENT = {
    "schema": "snapsync.receipt/1",
    "id": ID,
    "store": "s3://bucket/prefix",
    "pulled_at": "2026-01-01T00:00:00.250Z",
    "version": "1.2.3",
    "host": "node7",
    "files": 5,
    "directories": 2,
    "bytes": 500,
    "objects": 4,
    "verified": {"objects": 3, "bytes": 300},
    "cached": {
        "objects": 1,
        "bytes": 100,
        "verified_from": "2025-12-31T00:00:00.000Z",
        "verified_until": "2025-12-31T01:00:00.500Z",
        "objects_unrecorded": 0,
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with one value replaced, or removed if that is `...`."""
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    *above, name = path.split(".")
    place = document
    for each in above:
        place = place[each]
    if value is ...:
        del place[name]
    else:
        place[name] = value
    return document


def test_a_receipt_is_written_as_documented_and_read_back() -> None:
    assert RECEIPT.to_json() == DOCUMENT
    assert Receipt.from_json(DOCUMENT) == RECEIPT
    placed = RECEIPT.at(tree="/c/trees/x", destination="/data")
    assert placed.to_json() == {**DOCUMENT, "tree": "/c/trees/x", "dest": "/data"}
    assert Receipt.parse(json.dumps(placed.to_json()).encode()) == placed


def test_unknown_keys_and_unknown_times_are_no_obstacle() -> None:
    document = changed("cached.verified_from", None) | {"later": 1}
    assert Receipt.from_json(document).cached_when.earliest is None


def test_the_documented_schema_names_exactly_the_keys_that_are_written() -> None:
    text = (Path(__file__).parents[3] / "docs" / "receipts.md").read_text()
    schema = json.loads(text.split("```json\n")[1].split("```")[0])
    assert set(schema["properties"]) == {*DOCUMENT, "tree", "dest"}
    assert set(schema["required"]) == set(DOCUMENT)
    for name in ("verified", "cached"):
        assert set(schema["properties"][name]["required"]) == set(DOCUMENT[name])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", "snapsync.receipt/2", "snapsync.receipt/2"),
        ("schema", ..., "schema"),
        ("id", "ab", "not a snapshot ID"),
        ("store", 7, "store"),
        ("pulled_at", "yesterday", "yesterday"),
        ("pulled_at", "2026-01-01T00:00:00", "offset"),
        ("files", -1, "files"),
        ("bytes", True, "bytes"),
        ("directories", 1.0, "directories"),
        ("verified", [], "verified"),
        ("verified.objects", "3", "verified.objects"),
        ("cached.verified_until", 5, "cached.verified_until"),
        ("cached.objects", 2, "sum"),
        ("objects", ..., "objects"),
    ],
)
def test_what_is_wrong_with_a_document_is_named(path: str, value: Any, words: str) -> None:
    with pytest.raises(SnapsyncError, match=words) as caught:
        Receipt.from_json(changed(path, value))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b'"x"', b"null"])
def test_what_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError):
        Receipt.parse(text)


def test_moments_survive_the_round_trip() -> None:
    assert parse_moment("2026-01-01T01:00:00.250+01:00") == 1767225600.25
    assert parse_moment(format_moment(0.0)) == 0.0


def test_an_attestation_is_one_line() -> None:
    line = Attestation(RECEIPT, "/srv/data", 5, 500, 1767225700.0).line()
    assert line == (
        f"snapsync attest ok id={ID} files=5 bytes=500 store=s3://bucket/prefix "
        "pulled_at=2026-01-01T00:00:00.250Z verified_at=2026-01-01T00:01:40.000Z path=/srv/data"
    )


@pytest.mark.parametrize(
    "path", ["/a b", "/a\nsnapsync attest ok id=x", '/a"b', "/a=b", "/\x1b[31m", "/ä", "/\udcff"]
)
def test_no_path_can_forge_a_word_of_the_line(path: str) -> None:
    line = Attestation(RECEIPT, path, 5, 500, 1767225700.0).line()
    assert line.isascii()
    assert line.isprintable()
    before, quoted = line.split(" path=")
    assert json.loads(quoted) == path
    assert before.count("id=") == 1


def test_an_attestation_carries_the_receipt() -> None:
    document = Attestation(RECEIPT, "/data", 5, 500, 1767225700.0).to_json()
    assert document["receipt"] == DOCUMENT
    assert (document["id"], document["verified_at"]) == (ID, "2026-01-01T00:01:40.000Z")
