from __future__ import annotations

from snapd.model.ids import EMPTY_DIGEST, digest_of
from snapd.model.manifest import Entry, Manifest
from snapd.model.plan import ObjectRef, refs


def test_refs_name_each_distinct_object_with_one_of_its_paths() -> None:
    a, b = digest_of(b"a"), digest_of(b"b")
    manifest = Manifest.from_entries(
        [
            Entry("D", 0o755, EMPTY_DIGEST, 0, "./"),
            Entry("F", 0o644, a, 1, "./1"),
            Entry("F", 0o644, b, 1, "./2"),
            Entry("F", 0o644, a, 1, "./3"),
            Entry("F", 0o755, a, 1, "./4"),
        ]
    )
    assert list(refs(manifest, manifest.distinct_objects())) == [
        ObjectRef(a, 0o644, 1, "./1"),
        ObjectRef(b, 0o644, 1, "./2"),
        ObjectRef(a, 0o755, 1, "./4"),
    ]
