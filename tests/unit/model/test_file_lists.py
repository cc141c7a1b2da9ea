from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import ManifestRefused, SourceUnfit
from snapd.model.file_lists import (
    Difference,
    FileList,
    FileRow,
    Listed,
    read_file_list,
    render_file_list,
)
from snapd.model.ids import SnapshotId, digest_of

ID = SnapshotId(digest_of(b"snapshot"))


def row(path: str, data: bytes) -> FileRow:
    return FileRow(path, len(data), sha256(data).digest(), bytes.fromhex(digest_of(data)))


ROWS = [row("a", b"1"), row("b/ä b", b""), row("b0", b"22")]
HASHES = {each.path: each.sha256.hex() for each in ROWS}


def read(text: str) -> FileList:
    return read_file_list(StringIO(text).read)


def rendered(rows: Sequence[FileRow]) -> str:
    return b"".join(render_file_list(ID, len(rows), rows)).decode()


def test_our_own_is_json_with_a_file_a_line_and_is_read_back() -> None:
    text = rendered(ROWS)
    document = json.loads(text)
    assert document["snapshot_id"] == ID
    assert document["file_count"] == 3
    assert document["files"][1] == {
        "path": "b/ä b",
        "size": 0,
        "sha256": sha256(b"").hexdigest(),
        "blake3": digest_of(b""),
    }
    assert sum(line.startswith('{"path"') for line in text.splitlines()) == 3
    found = read(text)
    assert list(found) == [Listed(*each) for each in ROWS]
    assert (len(found), found.snapshot_id, found.has_sha256) == (3, ID, True)
    assert list(found.compare(ROWS)) == []


def test_without_sha256_the_other_hash_is_compared() -> None:
    found = read(rendered([each._replace(sha256=b"") for each in ROWS]))
    assert not found.has_sha256
    assert list(found.compare([each._replace(sha256=b"") for each in ROWS])) == []
    [other] = found.compare([ROWS[0]._replace(blake3=bytes(32)), *ROWS[1:]])
    assert (other.kind, other.path) == ("changed", "a")
    assert other.what.startswith("blake3 0000")


SHAPES: dict[str, Any] = {
    "list": [{"path": path, "sha256": text, "size": 1} for path, text in HASHES.items()],
    "reversed": [{"path": path, "sha256": text} for path, text in reversed(HASHES.items())],
    "names": [{"name": "x", "file": path, "sha256": text.upper()} for path, text in HASHES.items()],
    "hash": HASHES,
    "object": {path: {"sha256": text, "bytes": 1} for path, text in HASHES.items()},
    "below files": {"snapshot_id": ID, "version": 3, "files": HASHES, "more": {"x": 1}},
    "resources": {
        "resources": [
            {"name": "r", "path": path, "hash": f"sha256:{text}"} for path, text in HASHES.items()
        ],
        "created": "2026",
    },
    "dotted": {f"./{path}": text for path, text in HASHES.items()},
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_that_people_write(shape: str) -> None:
    found = read(f"\ufeff\n{json.dumps(SHAPES[shape])}")
    assert [(each.path, each.sha256) for each in found] == [
        (each.path, each.sha256) for each in ROWS
    ]


def test_lines_of_sha256sum() -> None:
    gnu = "".join(f"{text}  ./{path}\n" for path, text in HASHES.items())
    binary = "# a comment\r\n\r\n" + "\r\n".join(f"{text} *{p}" for p, text in HASHES.items())
    bsd = "".join(f"SHA256 ({path}) = {text}\n" for path, text in HASHES.items())
    for text in (gnu, binary, bsd):
        assert [each.path for each in read(text)] == [each.path for each in ROWS]
    [escaped] = read(f"\\{'ab' * 32}  back\\\\slash\n")
    assert escaped.path == "back\\slash"


def test_a_file_may_be_called_as_a_key_of_ours() -> None:
    names = ["schema", "snapshot_id"]
    assert [each.path for each in read(json.dumps(dict.fromkeys(names, "ab" * 32)))] == names


def test_differences_are_told_in_the_order_of_the_paths() -> None:
    found = read(json.dumps({**HASHES, "c": "0" * 64}))
    there = [ROWS[0]._replace(sha256=bytes(32)), row("a b", b"new"), ROWS[1]]
    assert list(found.compare(there)) == [
        Difference("changed", "a", f"sha256 {'0' * 64}, not {HASHES['a']}"),
        Difference("extra", "a b"),
        Difference("missing", "b0"),
        Difference("missing", "c"),
    ]
    [size] = read(rendered(ROWS[:1])).compare([ROWS[0]._replace(size_bytes=7)])
    assert size.what == "7 bytes, not 1"
    assert size.to_json() == {"kind": "changed", "path": "a", "what": "7 bytes, not 1"}


PATHS = st.text("ab/. ~é\U0001f600", min_size=1, max_size=6)


@given(st.sets(PATHS, min_size=1), st.sets(PATHS, min_size=1))
def test_comparing_agrees_with_sets(listed: set[str], there: set[str]) -> None:
    def fit(paths: set[str]) -> set[str]:
        return {p for p in paths if not {"", ".", ".."} & set(p.split("/"))} or {"x"}

    listed, there = fit(listed), fit(there)
    found = read(json.dumps({path: sha256(b"").hexdigest() for path in listed}))
    rows = [row(path, b"") for path in sorted(there, key=str.encode)]
    kinds = {each.path: each.kind for each in found.compare(rows)}
    assert kinds == {
        **dict.fromkeys(listed - there, "missing"),
        **dict.fromkeys(there - listed, "extra"),
    }


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../a", r"\.\."),
        ("a/../b", r"\.\."),
        ("a/./b", r"\. or"),
        (".//a", "absolute"),
        ("/etc/passwd", "absolute"),
        ("a//b", "empty component"),
        ("a/", "empty component"),
        ("", "empty component"),
        ("a\nb", "control character"),
        ("a\x00b", "control character"),
        ("a\x1b[2Jb", "control character"),
        ("a\x9bb", "control character"),
        ("a\ud800b", "not UTF-8"),
    ],
)
def test_hostile_paths_are_refused_in_every_shape(path: str, why: str) -> None:
    text = "ab" * 32
    for shape in ({path: text}, [{"path": path, "sha256": text}], {"files": {path: text}}):
        with pytest.raises(ManifestRefused, match=why) as caught:
            read(json.dumps(shape))
        assert caught.value.hint
        assert caught.value.message.isprintable()
    with pytest.raises(SourceUnfit):
        rendered([row(path, b"")])


GOOD = "ab" * 32


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lists no file"),
        ("[]", "lists no file"),
        ('{"files": []}', "lists no file"),
        ("just words", "no line of sha256sum"),
        (f"{GOOD[:-1]}  a", "no line of sha256sum"),
        ("x" * 200_000, "more than 65536 characters"),
        ('{"a": "short"}', "its hash is 'short'"),
        ('{"a": {"size": 1}}', "no sha256"),
        ('{"a": {"md5": "x"}}', "no sha256"),
        ('{"a": 1}', "neither a hash"),
        ('["a"]', "neither a hash"),
        (f'[{{"sha256": "{GOOD}"}}]', "no path"),
        (f'[{{"path": 3, "sha256": "{GOOD}"}}]', "no path"),
        (f'[{{"path": "a", "sha256": "{GOOD}", "size": -1}}]', "size is '-1'"),
        (f'[{{"path": "a", "sha256": "{GOOD}", "size": true}}]', "size is 'True'"),
        (f'[{{"path": "a", "hash": "md5:{GOOD}"}}]', "its hash is"),
        (f'[{{"path": "a", "sha256": "{GOOD}"}}, {{"path": "./a", "sha256": "{GOOD}"}}]', "twice"),
        (f'{{"a": "{GOOD}", "a": "{GOOD}"}}', "twice"),
        (f'{{"files": {{"a": "{GOOD}"}}, "entries": []}}', "two lists"),
        (f'{{"schema": "snapsync.files/2", "files": {{"a": "{GOOD}"}}}}', "files/2"),
        (f'{{"a": "{GOOD}"', "not JSON"),
    ],
)
def test_what_is_no_list_is_refused(text: str, why: str) -> None:
    with pytest.raises(ManifestRefused, match=why) as caught:
        read(text)
    assert len(caught.value.message) < 500


def test_a_list_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapd.model.file_lists.FILES_MAX", 3)
    names = {f"f{number}": GOOD for number in range(4)}
    lines = "".join(f"{GOOD}  {name}\n" for name in names)
    for text in (json.dumps(names), json.dumps({"files": names}), lines):
        with pytest.raises(ManifestRefused, match="more than 3 files"):
            read(text)
    assert len(read(json.dumps(dict(list(names.items())[:3])))) == 3


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_read_or_refused(text: str) -> None:
    for given_text in (text, f"{{{text}", f"[{text}", f'{{"{text}": "{GOOD}"}}'):
        try:
            found = read(given_text)
        except ManifestRefused:
            continue
        assert all(each.path and ".." not in each.path.split("/") for each in found)
