from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model import manifest as module
from snapd.model.errors import DigestMismatch, ManifestRefused, TreeDiffers
from snapd.model.ids import EMPTY_DIGEST, Digest, SnapshotId, digest_of
from snapd.model.manifest import Entry, Manifest, directory_checksum
from tests.unit.model.manifests import TREES, entries_of

A, B = digest_of(b"a"), digest_of(b"b")
ROOT = f"D 755 {EMPTY_DIGEST} 0 ./\n"


def text_of(*lines: str) -> bytes:
    """Write a manifest whose lines are `kind path`, below a root, in the given order."""
    rendered = [f"{line[0]} 644 {A} 1 {line[2:]}\n" for line in lines]
    return (ROOT + "".join(rendered)).encode()


def rule_broken_by(raw: bytes) -> tuple[int, str]:
    with pytest.raises(ManifestRefused) as caught:
        Manifest.parse(raw)
    return caught.value.details["line_number"], caught.value.details["rule"]


# --- properties


@given(TREES)
def test_rendering_and_parsing_are_inverse(tree: dict[str, Any]) -> None:
    entries = entries_of(tree)
    manifest = Manifest.from_entries(entries)
    assert sorted(manifest) == sorted(entries)
    again = Manifest.parse(manifest.text, expected_id=SnapshotId(digest_of(manifest.text)))
    assert (again, again.text, list(again)) == (manifest, manifest.text, list(manifest))
    manifest.check_directories()


@given(TREES)
def test_entries_are_found_by_index_and_path_and_in_byte_order(tree: dict[str, Any]) -> None:
    manifest = Manifest.from_entries(entries_of(tree))
    listed = list(manifest)
    assert listed == [manifest[index] for index in range(len(manifest))]
    assert all(manifest.find(entry.path) == entry for entry in listed)
    assert [entry.path.encode() for entry in listed] == sorted(e.path.encode() for e in listed)
    assert manifest.file_count == sum(entry.kind == "F" for entry in listed)
    assert manifest.directory_count == len(listed) - manifest.file_count
    assert manifest.total_bytes == sum(e.size_bytes for e in listed if e.kind == "F")


@given(TREES)
def test_distinct_objects_are_the_first_of_their_kind(tree: dict[str, Any]) -> None:
    manifest = Manifest.from_entries(entries_of(tree))
    firsts: dict[tuple[str, int], int] = {}
    for index, entry in enumerate(manifest):
        if entry.kind == "F":
            firsts.setdefault((entry.checksum, entry.mode), index)
    assert list(manifest.distinct_objects()) == list(firsts.values())


@given(TREES, st.data())
def test_no_changed_byte_goes_unnoticed(tree: dict[str, Any], data: st.DataObject) -> None:
    manifest = Manifest.from_entries(entries_of(tree))
    at = data.draw(st.integers(0, len(manifest.text) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != manifest.text[at]))
    mutated = manifest.text[:at] + bytes([other]) + manifest.text[at + 1 :]
    with pytest.raises(DigestMismatch):
        Manifest.parse(mutated, expected_id=manifest.id)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_manifest_are_refused(raw: bytes) -> None:
    with pytest.raises(ManifestRefused):
        Manifest.parse(raw)


@given(TREES, st.data())
def test_without_an_id_the_rules_still_refuse_doubled_and_swapped_lines(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    lines = Manifest.from_entries(entries_of(tree)).text.split(b"\n")[:-1]
    index = data.draw(st.integers(0, len(lines) - 1))
    with pytest.raises(ManifestRefused):
        Manifest.parse(b"\n".join([*lines[: index + 1], *lines[index:]]))
    if index:
        lines[index - 1 : index + 1] = [lines[index], lines[index - 1]]
        with pytest.raises(ManifestRefused):
            Manifest.parse(b"\n".join(lines))


# --- what is tolerated, and what the ID covers


def test_comments_empty_lines_and_a_missing_final_lf_are_no_part_of_the_id() -> None:
    canonical = text_of("F ./f")
    expected = SnapshotId(digest_of(canonical))
    root, file = canonical.decode().splitlines()
    for raw in (
        f"{root}\n{file}",
        f"# made by hand\n{root}\n{file}\n",
        f"\n{root}\n{file}\n",
        f"{root}\n# the file\n{file}\n",
        f"{root}\n\n{file}\n",
        f"{root}\n{file}\n\n",
        f"{root}\n{file}\n# the end",
        f"#\n\n##\n{root}\n\n# the file\n{file}\n\n",
    ):
        for expected_id in (None, expected):
            manifest = Manifest.parse(raw.encode(), expected_id=expected_id)
            assert (manifest.id, manifest.text) == (expected, canonical)


def test_a_comment_that_the_id_covers_is_refused() -> None:
    raw = b"# covered\n" + text_of("F ./f")
    with pytest.raises(ManifestRefused) as caught:
        Manifest.parse(raw, expected_id=SnapshotId(digest_of(raw)))
    assert caught.value.details["line_number"] == 1


@pytest.mark.parametrize("raw", [b"", text_of("F ./f")[:-1]])
def test_an_id_that_covers_no_final_lf_is_refused(raw: bytes) -> None:
    with pytest.raises(ManifestRefused, match="ends with one LF") as caught:
        Manifest.parse(raw, expected_id=SnapshotId(digest_of(raw)))
    assert caught.value.details["line_number"] == raw.count(b"\n") + 1


def test_the_line_number_counts_tolerated_lines() -> None:
    raw = b"# one\n\n" + text_of("F ./f", "F f") + b"# six\n"
    assert rule_broken_by(raw) == (5, "a path starts with ./")


@pytest.mark.parametrize(
    ("raw", "line_number"),
    [
        (text_of("F f"), 2),
        (text_of("F f")[:-1], 2),
        (b"\n" * 1000 + text_of("F ./f", "F f"), 1003),
        (b"#\n" + text_of("F ./f") + b"\n#" + b"\n\n" + text_of("F f")[len(ROOT) :] + b"#", 7),
        (b"\n" * 1000, 1000),
    ],
)
def test_the_line_number_is_that_of_an_editor(raw: bytes, line_number: int) -> None:
    assert rule_broken_by(raw)[0] == line_number


def test_another_id_is_a_digest_mismatch_that_names_both() -> None:
    raw = text_of("F ./f")
    with pytest.raises(DigestMismatch) as caught:
        Manifest.parse(raw, expected_id=SnapshotId(A))
    assert caught.value.details == {"expected": A, "actual": digest_of(raw)}


# --- rules


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (f"L 644 {A} 1 ./f", "the type is F or D"),
        (f"F 0644 {A} 1 ./f", "a mode is octal"),
        (f"F 100644 {A} 1 ./f", "a mode is octal"),
        (f"F 8 {A} 1 ./f", "a mode is octal"),
        (f"F  {A} 1 ./f", "a mode is octal"),
        (f"F 644 {A[:-1]} 1 ./f", "a checksum is 64"),
        (f"F 644 {A}0 1 ./f", "a checksum is 64"),
        (f"F 644 {A.upper()} 1 ./f", "a checksum is 64"),
        (f"F 644 {A} 01 ./f", "a size is"),
        (f"F 644 {A} +1 ./f", "a size is"),
        (f"F 644 {A} -1 ./f", "a size is"),
        (f"F 644 {A} {2**64} ./f", "a size is"),
        (f"F 644 {A} {10**20} ./f", "a size is"),
        (f"F 644 {A} \u0661 ./f", "a size is"),
        (f"F 644 {A} 1", "a line has five fields"),
        (f"F\t644\t{A}\t1\t./f", "a line has five fields"),
        (f"F 644 {A} 1 f", "a path starts with ./"),
        (f"F 644 {A} 1  ./f", "a path starts with ./"),
        (f"F 644 {A} 1 /f", "a path starts with ./"),
        (f"F 644 {A} 1 ./", "the path of a file does not end with /"),
        (f"F 644 {A} 1 ./f/", "the path of a file does not end with /"),
        (f"D 755 {A} 1 ./f", "the path of a directory ends with /"),
        (f"D 755 {A} 1 ./f/\r", "the path of a directory ends with /"),
        (f"F 644 {A} 1 .//f", "a path has no empty component"),
        (f"D 755 {A} 1 .//", "a path has no empty component"),
        (f"D 755 {A} 1 ./f//", "a path has no empty component"),
        (f"F 644 {A} 1 ././f", "a path has no component . or .."),
        (f"F 644 {A} 1 ./.", "a path has no component . or .."),
        (f"F 644 {A} 1 ./../f", "a path has no component . or .."),
        (f"D 755 {A} 1 ./../", "a path has no component . or .."),
        (f"F 644 {A} 1 ./f\0g", "a path holds no NUL"),
        (f"F 644 {A} 1 ./{'n' * 256}", "a component of a path has at most 255 bytes"),
        (f"D 755 {A} 1 ./{'é' * 128}/", "a component of a path has at most 255 bytes"),
        (f"F 644 {A} 1 ./f\r", "the name of a file does not end with a carriage return"),
    ],
)
def test_a_line_that_breaks_a_rule_is_named(line: str, rule: str) -> None:
    line_number, broken = rule_broken_by((ROOT + line + "\n").encode())
    assert line_number == 2
    assert broken.startswith(rule)


@pytest.mark.parametrize(
    "name",
    ["...", "..a", ".a", " ", "a b", "\\", "a\rb", "\x85", "\u2028", "#", "n" * 255, "é" * 127],
)
def test_odd_names_are_names(name: str) -> None:
    manifest = Manifest.parse(text_of(f"F ./{name}"))
    assert manifest[1].path == f"./{name}"


def test_the_largest_mode_and_size_are_allowed() -> None:
    manifest = Manifest.parse((ROOT + f"F 7777 {A} {2**64 - 1} ./f\n").encode())
    assert manifest[1] == Entry("F", 0o7777, A, 2**64 - 1, "./f")


def test_text_that_is_not_utf8_is_refused_with_a_readable_path() -> None:
    with pytest.raises(ManifestRefused) as caught:
        Manifest.parse(text_of("F ./f") + f"F 644 {A} 1 ./g".encode() + b"\xff\n")
    assert caught.value.details == {
        "line_number": 3,
        "path": "./g\\xff",
        "rule": "the text is UTF-8",
    }


@pytest.mark.parametrize(
    ("lines", "line_number", "rule"),
    [
        (["F ./b", "F ./a"], 3, "in the order"),
        (["D ./a/", "F ./a!"], 3, "in the order"),
        (["F ./a", "F ./a"], 3, "listed once"),
        (["D ./"], 2, "listed once"),
        (["F ./a/b"], 2, "every parent"),
        (["D ./a/b/"], 2, "every parent"),
        (["F ./a", "F ./a/b"], 3, "every parent"),
        (["D ./a/", "F ./a/b", "F ./a0/b"], 4, "every parent"),
        (["D ./a/", "D ./a/b/c/"], 3, "every parent"),
        (["F ./a", "D ./a/"], 3, "either a file or a directory"),
        (["F ./a", "F ./a!", "D ./a.d/", "F ./a.d/x", "D ./a/"], 6, "either a file or a directory"),
        (["F ./a", "F ./a ", "F ./a  ", "D ./a /"], 5, "either a file or a directory"),
    ],
)
def test_lines_that_contradict_each_other_are_refused(
    lines: list[str], line_number: int, rule: str
) -> None:
    found, broken = rule_broken_by(text_of(*lines))
    assert found == line_number
    assert rule in broken


def test_siblings_may_stand_before_a_directory_of_a_longer_name() -> None:
    lines = ["F ./a b", "F ./a!", "F ./a-b", "D ./a.b/", "F ./a.b/c", "D ./a/", "F ./a/x", "F ./a0"]
    assert len(Manifest.parse(text_of(*lines))) == len(lines) + 1


@pytest.mark.parametrize("raw", [b"", b"\n", b"# nothing\n", text_of("F ./f")[len(ROOT) :]])
def test_a_manifest_without_its_root_is_refused(raw: bytes) -> None:
    assert rule_broken_by(raw) == (1, "the first entry is the root: D ./")


def test_rules_hold_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks of one line, everything is carried from one block to the next."""
    sound = text_of("F ./a", "F ./a!", "D ./b/", "F ./b/c", "F ./é")
    whole = Manifest.parse(sound)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 10)
    cut = Manifest.parse(sound)
    assert list(cut) == list(whole)
    assert (cut.file_count, cut.total_bytes) == (whole.file_count, whole.total_bytes)
    assert cut.find("./b/c") == whole.find("./b/c")
    assert rule_broken_by(text_of("F ./a", "F ./a!", "D ./a/"))[0] == 4
    assert rule_broken_by(text_of("D ./a/", "F ./b", "F ./b"))[0] == 4
    assert rule_broken_by(text_of("F ./a", "F ./b/c"))[0] == 3
    assert rule_broken_by(text_of("F ./a", "F ./b", "f ./c"))[0] == 4


def test_a_long_path_is_shortened_in_the_message_and_whole_in_the_details() -> None:
    path = "./" + "n" * 5000
    with pytest.raises(ManifestRefused) as caught:
        Manifest.parse(text_of(f"F {path}"))
    assert len(caught.value.message) < 500
    assert caught.value.details["path"] == path


def test_little_is_held_beside_the_text() -> None:
    lines = [f"F 644 {A} 1 ./{number:06d}" for number in range(20_000)]
    raw = (ROOT + "\n".join(lines) + "\n").encode()
    tracemalloc.start()
    try:
        manifest = Manifest.parse(raw)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert manifest.text is raw
    assert held < 16 * len(lines)
    assert peak < 20_000_000


# --- entries


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("./a\nb", "no line feed"),
        ("./a\udcff", "UTF-8"),
        ("./a\r", "carriage return"),
        ("a", "starts with ./"),
        ("./a/b", "every parent"),
    ],
)
def test_entries_that_the_format_cannot_carry_are_refused_by_path(path: str, rule: str) -> None:
    root = Entry("D", 0o755, EMPTY_DIGEST, 0, "./")
    with pytest.raises(ManifestRefused) as caught:
        Manifest.from_entries([Entry("F", 0o644, A, 1, path), root])
    assert caught.value.details["path"] == path
    assert rule in caught.value.details["rule"]


def test_an_index_out_of_range_and_an_absent_path() -> None:
    manifest = Manifest.parse(text_of("F ./b"))
    for index in (-1, 2):
        with pytest.raises(IndexError):
            manifest[index]
    for path in ("./a", "./b/", "./c", "", "./\udcff"):
        assert manifest.find(path) is None


def test_manifests_are_equal_by_id() -> None:
    raw = text_of("F ./b")
    assert Manifest.parse(raw) == Manifest.parse(raw.rstrip(b"\n"))
    assert len({Manifest.parse(raw), Manifest.parse(raw), Manifest.parse(text_of("F ./c"))}) == 2
    assert Manifest.parse(raw) != raw
    assert digest_of(raw) in repr(Manifest.parse(raw))


# --- directories


def test_a_directory_hashes_the_sorted_distinct_checksums_of_its_children() -> None:
    assert directory_checksum([]) == EMPTY_DIGEST
    assert directory_checksum([B, A, B]) == digest_of("".join(sorted([A, B])).encode())


@pytest.mark.parametrize(
    ("checksum", "size_bytes", "complaint"),
    [
        (EMPTY_DIGEST, 1, "wrong checksum for the directory './d/'"),
        (directory_checksum([A]), 2, "wrong size for the directory './d/'"),
    ],
)
def test_the_directory_that_lies_is_named(
    checksum: Digest, size_bytes: int, complaint: str
) -> None:
    lines = [
        f"D 755 {directory_checksum([checksum])} {size_bytes} ./",
        f"D 755 {checksum} {size_bytes} ./d/",
        f"F 644 {A} 1 ./d/f",
    ]
    manifest = Manifest.parse(("\n".join(lines) + "\n").encode())
    with pytest.raises(TreeDiffers) as caught:
        manifest.check_directories()
    assert complaint in caught.value.message
    assert caught.value.details["path"] == "./d/"
