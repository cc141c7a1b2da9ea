from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapd.model.ids import Digest, digest_of
from snapd.model.manifest import Entry, Manifest
from snapd.model.occurrences import Occurrence, occurrences

WANTED, OTHER = digest_of(b"wanted"), digest_of(b"other")


def manifest(*entries: tuple[str, Digest]) -> bytes:
    made = [Entry("D", 0o755, OTHER, 0, "./")]
    made += [Entry("F", 0o644, digest, 6, path) for path, digest in entries]
    return Manifest.from_entries(made).text


def test_every_path_is_found() -> None:
    text = manifest(("./a", WANTED), ("./b", OTHER), ("./c d", WANTED))
    assert occurrences(text, WANTED, 10) == (
        [Occurrence("F", "./a"), Occurrence("F", "./c d")],
        False,
    )
    assert occurrences(text, WANTED, 1) == ([Occurrence("F", "./a")], True)
    assert occurrences(text, OTHER, 10)[0][0] == Occurrence("D", "./")
    assert occurrences(text, digest_of(b"x"), 10) == ([], False)


def test_a_name_that_looks_like_a_line_is_no_line() -> None:
    text = manifest((f"./x {WANTED} y", OTHER), (f"./x {WANTED} z", WANTED))
    assert occurrences(text, WANTED, 10) == ([Occurrence("F", f"./x {WANTED} z")], False)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_bytes_that_are_no_manifest_harm_nobody(before: bytes, after: bytes) -> None:
    found, _ = occurrences(before + f" {WANTED} ".encode() + after, WANTED, 3)
    assert len(found) <= 3
