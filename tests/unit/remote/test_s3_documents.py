"""The XML of S3, from AWS and from servers that write it differently."""

from __future__ import annotations

import pytest

from snapd.model.errors import StoreFailing
from snapd.remote.base import ObjectInfo
from snapd.remote.s3_documents import (
    Page,
    parse_completed,
    parse_page,
    parse_upload_id,
    render_completion,
)

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def page(inside: str, namespace: str = NAMESPACE) -> bytes:
    return f"<ListBucketResult {namespace}>{inside}</ListBucketResult>".encode()


@pytest.mark.parametrize("namespace", [NAMESPACE, ""])
def test_a_page(namespace: str) -> None:
    inside = (
        "<IsTruncated>true</IsTruncated><NextContinuationToken>t/+=</NextContinuationToken>"
        "<Contents><Key>a b+c</Key><Size>7</Size><ETag>&quot;e&quot;</ETag></Contents>"
        "<Contents><Key>d</Key><Size>0</Size></Contents>"
    )
    objects = [ObjectInfo("a b+c", 7, '"e"'), ObjectInfo("d", 0, "")]
    assert parse_page(page(inside, namespace), "s3://b") == Page(objects, "t/+=")


def test_encoded_keys_are_decoded_only_if_the_server_says_so() -> None:
    entry = "<Contents><Key>a+b%2Bc</Key><Size>1</Size></Contents>"
    [plain] = parse_page(page(entry), "s3://b").objects
    [decoded] = parse_page(page(f"<EncodingType>url</EncodingType>{entry}"), "s3://b").objects
    assert (plain.key, decoded.key) == ("a+b%2Bc", "a b+c")


def test_the_last_page_has_no_continuation() -> None:
    assert parse_page(page("<IsTruncated>false</IsTruncated>"), "s3://b") == Page([], None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not xml",
        b"<html><body>log in here</body></html>",
        page("<Contents><Key>a</Key></Contents>"),
        page("<IsTruncated>true</IsTruncated>"),
    ],
)
def test_what_is_no_page_names_the_store(body: bytes) -> None:
    with pytest.raises(StoreFailing, match="s3://b"):
        parse_page(body, "s3://b")


def test_the_documents_of_an_upload() -> None:
    begun = "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>"
    assert parse_upload_id(begun.encode(), "s3://b/k") == "id"
    with pytest.raises(StoreFailing, match="s3://b/k"):
        parse_upload_id(b"<InitiateMultipartUploadResult/>", "s3://b/k")
    rendered = render_completion(['"one"', '"two"']).decode()
    part = "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>"
    parts = part.format(1, '"one"') + part.format(2, '"two"')
    assert rendered == f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
    done = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
    assert parse_completed(done.encode(), "s3://b/k") == "e"
