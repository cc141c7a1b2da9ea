"""Manifests for tests: made from a few words, or of any shape by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from snapd.model.ids import digest_of
from snapd.model.manifest import Entry, directory_checksum

NAMES = st.one_of(
    st.sampled_from(["a", "b", "a.", "a!", "a0", "a b", "ab", " ", "é", "e\u0301", "\U0001f600"]),
    st.text(
        st.characters(exclude_characters="/\n\x00", exclude_categories=["Cs"]),
        min_size=1,
        max_size=8,
    ),
).filter(lambda name: name not in {".", ".."} and not name.endswith("\r"))
FILES = st.tuples(
    st.integers(0, 0o7777),
    st.binary(max_size=2).map(digest_of),
    st.integers(0, 2**40),
)
TREES = st.recursive(
    st.dictionaries(NAMES, FILES, max_size=4),
    lambda children: st.dictionaries(NAMES, st.one_of(FILES, children), max_size=4),
    max_leaves=12,
)
"""Directories as dictionaries, files as triples of mode, checksum and size."""


def entries_of(tree: dict[str, Any], path: str = "./") -> list[Entry]:
    """List a tree of `TREES` with the checksums and sizes that its directories must have."""
    below: list[Entry] = []
    children: list[Entry] = []
    for name, node in tree.items():
        if isinstance(node, dict):
            listed = entries_of(node, f"{path}{name}/")
        else:
            mode, checksum, size_bytes = node
            listed = [Entry("F", mode, checksum, size_bytes, f"{path}{name}")]
        children.append(listed[0])
        below += listed
    stated = Entry(
        "D",
        0o755,
        directory_checksum(child.checksum for child in children),
        sum(child.size_bytes for child in children),
        path,
    )
    return [stated, *below]
