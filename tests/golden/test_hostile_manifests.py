"""Every hostile manifest ends as its verdict says, and as docs/format.md says, when it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from snapd.model.errors import DigestMismatch, ManifestRefused, TreeDiffers
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from tests.data import hostile_cases, hostile_manifest

CASES = {case["name"]: case for case in hostile_cases()}
FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "format.md"

REFUSED_AT = {
    "path-dotdot": (2, "."),
    "path-dotdot-stays-inside": (2, "."),
    "path-absolute": (2, "starts with ./"),
    "path-dir-dotdot-chmod": (2, ".."),
    "path-no-dot-slash": (2, "starts with ./"),
    "path-dot-segments": (2, "empty component"),
    "path-root-as-file": (1, "the path of a file does not end with /"),
    "path-nul": (2, "NUL"),
    "duplicate-path": (3, "listed once"),
    "file-and-dir-same-name": (3, "either a file or a directory"),
    "file-with-trailing-slash": (2, "the path of a file does not end with /"),
    "dir-without-trailing-slash": (2, "the path of a directory ends with /"),
    "missing-root-entry": (1, "root"),
    "empty-manifest": (1, "root"),
    "uppercase-hex-checksum": (2, "lowercase"),
    "short-checksum": (2, "64"),
    "checksum-path-traversal": (2, "checksum"),
    "mode-not-octal": (2, "octal"),
    "name-too-long": (2, "255"),
}
WRONG_ID = {
    "path-dotdot-no-prefix",
    "path-control-lf-in-name",
    "type-symlink",
    "wrong-id",
    "truncated-line",
    "size-negative",
    "size-plus-and-zeros",
    "crlf",
    "unsorted",
    "not-utf8",
    "tab-separated",
}
LYING_DIRECTORIES = {
    "dest-symlink-dir",
    "object-wrong-bytes",
    "object-missing",
    "size-mismatch",
    "lying-directory-checksum",
}
SOUND = {
    "path-backslash-dotdot",
    "dest-hardlink",
    "object-is-symlink",
    "comments-and-blank-lines",
    "no-final-newline",
    "mode-setuid",
}


def parsed(name: str) -> Manifest:
    return Manifest.parse(hostile_manifest(name), expected_id=SnapshotId(CASES[name]["id"]))


def test_every_case_has_one_end_and_no_verdict_is_missed() -> None:
    ends = [*REFUSED_AT, *WRONG_ID, *LYING_DIRECTORIES, *SOUND]
    assert sorted(ends) == sorted(CASES)
    rejected = {name for name, case in CASES.items() if case["verdict"] == "reject"}
    assert rejected <= {*REFUSED_AT, *WRONG_ID}


@pytest.mark.parametrize("name", sorted(REFUSED_AT))
def test_a_rule_is_named_with_its_line_and_path(name: str) -> None:
    line_number, rule = REFUSED_AT[name]
    with pytest.raises(ManifestRefused) as caught:
        parsed(name)
    details: dict[str, Any] = caught.value.details
    assert details["line_number"] == line_number
    assert rule in details["rule"]
    assert f"line {line_number}" in caught.value.message
    assert details["rule"] in caught.value.message


@pytest.mark.parametrize("name", sorted(WRONG_ID))
def test_bytes_that_do_not_hash_to_the_id_are_refused(name: str) -> None:
    with pytest.raises(DigestMismatch) as caught:
        parsed(name)
    assert CASES[name]["id"] in caught.value.message


@pytest.mark.parametrize("name", sorted(LYING_DIRECTORIES))
def test_a_lying_directory_is_found_when_it_is_asked_for(name: str) -> None:
    manifest = parsed(name)
    with pytest.raises(TreeDiffers, match=r"wrong (checksum|size) for the directory './"):
        manifest.check_directories()


@pytest.mark.parametrize("name", sorted(SOUND))
def test_what_is_only_odd_is_accepted(name: str) -> None:
    manifest = parsed(name)
    manifest.check_directories()
    assert manifest.text.endswith(b"\n")
    assert b"#" not in manifest.text


def test_the_format_page_tells_the_end_of_every_case() -> None:
    named = set(re.findall(r"`([a-z0-9-]+)`", FORMAT_PAGE.read_text(encoding="utf-8")))
    assert set(CASES) <= named
