from __future__ import annotations

import pytest

from snapd.model.errors import InvalidStoreUri
from snapd.model.uris import StoreUri, parse_store_uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3://bucket", StoreUri("s3", "bucket", "")),
        ("s3://bucket/", StoreUri("s3", "bucket", "")),
        ("s3://bucket/a/b/", StoreUri("s3", "bucket", "a/b")),
        ("s3://bucket//a//b", StoreUri("s3", "bucket", "a//b")),
        ("gs://bucket/a", StoreUri("gs", "bucket", "a")),
        ("memory://name", StoreUri("memory", "name", "")),
        ("file:///srv/store/", StoreUri("file", "", "/srv/store")),
        ("file://srv/store", StoreUri("file", "", "/srv/store")),
        ("file:////srv", StoreUri("file", "", "/srv")),
        ("file://localhost/srv", StoreUri("file", "", "/srv")),
        ("file:///localhosttmp/x", StoreUri("file", "", "/localhosttmp/x")),
        ("file:///a%20b?x=1#f", StoreUri("file", "", "/a%20b?x=1#f")),
        ("file:///", StoreUri("file", "", "/")),
    ],
)
def test_a_uri_is_read_and_its_text_means_the_same(text: str, uri: StoreUri) -> None:
    assert parse_store_uri(text) == uri
    assert parse_store_uri(str(uri)) == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bucket",
        "/srv/store",
        "s3:bucket",
        "S3://bucket",
        "http://bucket",
        "s3://",
        "s3:///prefix",
        "gs://",
        "memory://",
        "file:///srv/../etc",
        "s3://buc\nket",
        "file:///a\0b",
    ],
)
def test_what_is_no_store_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidStoreUri) as caught:
        parse_store_uri(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("above", "below", "covered"),
    [
        ("s3://b", "s3://b", True),
        ("s3://b", "s3://b/x/y", True),
        ("s3://b/x", "s3://b/x/y", True),
        ("s3://b/x", "s3://b/xy", False),
        ("s3://b/x", "s3://b", False),
        ("s3://b", "s3://c/x", False),
        ("s3://b", "gs://b", False),
        ("file:///srv", "file:///srv/store", True),
        ("file:///srv", "file:///srv2", False),
        ("file:///", "file:///srv", True),
    ],
)
def test_a_store_covers_what_lies_below_it(above: str, below: str, covered: bool) -> None:
    assert parse_store_uri(above).covers(parse_store_uri(below)) is covered
