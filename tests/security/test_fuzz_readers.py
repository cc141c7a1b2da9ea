"""What is read from strangers - manifests, bodies of requests, addresses - under Hypothesis.

Whatever comes, a reader returns or raises one of our errors, and what it returns is fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapd.model.access import parse_subject
from snapd.model.addresses import is_plain_host, parse_listen
from snapd.model.config import load_settings
from snapd.model.errors import SnapsyncError
from snapd.model.follow_records import FollowRecord
from snapd.model.follows import FollowRequest
from snapd.model.jobs import PullRequest
from snapd.model.leases import Lease, LeaseRequest
from snapd.model.manifest import Manifest
from snapd.model.overview import without_secrets
from snapd.model.receipts import Receipt
from snapd.model.space import SweepRequest
from snapd.model.uris import parse_store_uri

EXAMPLES = 25 * int(os.environ.get("SNAPSYNC_FUZZ_EXAMPLES", "12"))
LONG = "SNAPSYNC_FUZZ_EXAMPLES" in os.environ
bounded = settings(max_examples=EXAMPLES, deadline=None, derandomize=not LONG)

HEX = st.text("0123456789abcdef", min_size=63, max_size=65)
WORDS = st.one_of(
    HEX,
    st.sampled_from(
        ["F", "D", "L", "644", "0755", "7777", "-1", "9" * 30, "./", "./a/", "../", ""]
    ),
    st.text(max_size=12),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
KEYS = st.sampled_from(
    sorted(
        {*PullRequest.__dataclass_fields__, *LeaseRequest._fields}
        | {"id", "detach", "dryrun", "free_bytes", "lease_id", "process"}
        | {"reference", "dest", "poll_seconds", "hook", "wait", "follow", "live", "previous"}
    )
)
BODIES = JSON | st.dictionaries(KEYS, JSON | HEX | st.sampled_from(["pin", "link", "/a", "s3://b"]))


def survives(reader: Callable[[Any], object], given: Any) -> None:
    """Read; anything but a result or an error of ours is a defect."""
    try:
        reader(given)
    except SnapsyncError as error:
        json.dumps(error.to_json())


@bounded
@given(st.binary(max_size=4000))
def test_bytes_as_a_manifest(raw: bytes) -> None:
    survives(Manifest.parse, raw)


@bounded
@given(st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), max_size=8))
def test_lines_as_a_manifest(lines: list[str]) -> None:
    survives(Manifest.parse, ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "reader",
    [PullRequest, LeaseRequest, SweepRequest, Lease, Receipt, FollowRequest, FollowRecord],
    ids=lambda kind: kind.__name__,
)
@bounded
@given(body=BODIES)
def test_a_body(reader: Any, body: Any) -> None:
    survives(reader.from_json, body)


@pytest.mark.parametrize("reader", [parse_store_uri, parse_subject, parse_listen, load_settings])
@bounded
@given(text=st.text(max_size=60))
def test_a_text(reader: Callable[[str], object], text: str) -> None:
    survives(reader, text)


@bounded
@given(st.text("[]:.0123456789abcdefx", max_size=30))
def test_a_host(header: str) -> None:
    is_plain_host(header)


@bounded
@given(st.sampled_from(["file://", "s3://", "gs://"]), st.text(max_size=60))
def test_a_store_never_climbs(scheme: str, rest: str) -> None:
    try:
        uri = parse_store_uri(scheme + rest)
    except SnapsyncError:
        return
    if uri.scheme == "file":
        assert uri.path.startswith("/")
        assert ".." not in uri.path.split("/")
    root = parse_store_uri("file:///data")
    assert root.covers(uri) == (uri.path == "/data" or uri.path.startswith("/data/"))


@bounded
@given(st.text("ab:/@?&=", max_size=20), st.text("secret", min_size=6, max_size=12))
def test_no_password_of_a_url_is_left(around: str, secret: str) -> None:
    shown = without_secrets(f"{around} https://me:{secret}!@host/?X-Amz-Signature={secret}!&a=1")
    assert f"{secret}!" not in shown
