"""The XML that S3 speaks: pages of a listing, and the documents around a multipart upload."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_plus
from xml.etree import ElementTree as Xml

from snapd.model.errors import StoreFailing
from snapd.remote.base import ObjectInfo


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys of a listing, and what to ask for the next page with; None after the last."""

    objects: list[ObjectInfo]
    continuation: str | None


def parse_page(body: bytes, name: str) -> Page:
    """Read an answer to ListObjectsV2; raises `StoreFailing` if it is none."""
    root = _parse(body, "ListBucketResult", name)
    encoded = _text(root, "EncodingType") == "url"
    objects = []
    for entry in root.iterfind("{*}Contents"):
        key, size = _text(entry, "Key"), _text(entry, "Size")
        if not size.isdigit():
            raise StoreFailing(f"{name}: the listing gives no size for {key!r}")
        objects.append(
            ObjectInfo(unquote_plus(key) if encoded else key, int(size), _text(entry, "ETag"))
        )
    more = _text(root, "IsTruncated") == "true"
    continuation = _text(root, "NextContinuationToken") if more else None
    if continuation == "":
        raise StoreFailing(f"{name}: the listing goes on, but does not say where")
    return Page(objects, continuation)


def parse_upload_id(body: bytes, name: str) -> str:
    """Read the answer to CreateMultipartUpload; raises `StoreFailing` if it names no upload."""
    upload_id = _text(_parse(body, "InitiateMultipartUploadResult", name), "UploadId")
    if not upload_id:
        raise StoreFailing(f"{name}: the store began an upload without naming it")
    return upload_id


def parse_completed(body: bytes, name: str) -> str:
    """Read the ETag out of the answer to CompleteMultipartUpload; an empty body has none."""
    return _text(_parse(body, "CompleteMultipartUploadResult", name), "ETag")


def render_completion(etags: list[str]) -> bytes:
    """Name the parts of an upload, in order, for CompleteMultipartUpload."""
    root = Xml.Element("CompleteMultipartUpload")
    for number, etag in enumerate(etags, start=1):
        part = Xml.SubElement(root, "Part")
        Xml.SubElement(part, "PartNumber").text = str(number)
        Xml.SubElement(part, "ETag").text = etag
    return Xml.tostring(root)


def _parse(body: bytes, expected: str, name: str) -> Xml.Element:
    try:
        root = Xml.fromstring(body)
    except Xml.ParseError as exc:
        raise StoreFailing(f"{name}: the store answered with broken XML: {exc}") from exc
    if root.tag.rpartition("}")[2] != expected:
        raise StoreFailing(f"{name}: the store answered with {root.tag!r}, not {expected}")
    return root


def _text(parent: Xml.Element, tag: str) -> str:
    found = parent.find(f"{{*}}{tag}")
    return (found.text or "") if found is not None else ""
