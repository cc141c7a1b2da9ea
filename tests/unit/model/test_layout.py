from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.ids import EMPTY_DIGEST, Digest, SnapshotId, digest_of
from snapd.model.layout import (
    MANIFESTS_PREFIX,
    OBJECTS_PREFIX,
    digest_in_key,
    manifest_key,
    object_key,
)

KEY = ".objects/af1/349/b9f/5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_keys_are_those_of_the_format() -> None:
    assert object_key(EMPTY_DIGEST) == KEY
    assert manifest_key(SnapshotId(EMPTY_DIGEST)) == KEY.replace("objects", "manifests")


@given(st.binary(max_size=8).map(digest_of))
def test_a_digest_is_read_back_from_its_key(digest: Digest) -> None:
    assert digest_in_key(object_key(digest), OBJECTS_PREFIX) == digest
    assert digest_in_key(manifest_key(SnapshotId(digest)), MANIFESTS_PREFIX) == digest


@pytest.mark.parametrize(
    "key",
    [
        "",
        OBJECTS_PREFIX,
        KEY.replace("objects", "manifests"),
        f"{KEY}.17.2.tmp",
        f"{KEY}/",
        KEY.replace("af1/", "AF1/"),
        KEY.replace("af1/", "af/1"),
        KEY.replace("af1", "..."),
        f"x/{KEY}",
        KEY.removeprefix(OBJECTS_PREFIX),
    ],
)
def test_names_that_are_not_ours_are_none(key: str) -> None:
    assert digest_in_key(key, OBJECTS_PREFIX) is None
