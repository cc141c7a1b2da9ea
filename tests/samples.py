"""Small snapshots made in memory, for tests that need one without walking a directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from snapd.model.ids import Digest, SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.manifest import Entry, Manifest, directory_checksum

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755


@dataclass(frozen=True)
class Sample:
    """A snapshot with its objects, as a store would hold it."""

    manifest: Manifest
    objects: dict[Digest, bytes] = field(repr=False)

    @property
    def id(self) -> SnapshotId:
        return self.manifest.id

    def keys(self) -> dict[str, bytes]:
        """Everything under the key where a store has it."""
        found = {object_key(digest): data for digest, data in self.objects.items()}
        return {**found, manifest_key(self.id): self.manifest.text}


def sample(files: Mapping[str, bytes], *, modes: Mapping[str, int] | None = None) -> Sample:
    """Make a snapshot of `{"dir/name": content}`; files are 644 and directories 755 unless said."""
    modes = modes or {}
    objects = {digest_of(data): data for data in files.values()}
    children: dict[str, list[tuple[Digest, int]]] = defaultdict(list)
    entries = []
    directories = {"./"}
    for path, data in files.items():
        parts = path.split("/")
        directories |= {"./" + "/".join(parts[:depth]) + "/" for depth in range(1, len(parts))}
        digest = digest_of(data)
        mode = modes.get(path, FILE_MODE)
        entries.append(Entry("F", mode, digest, len(data), f"./{path}"))
        children[_parent(f"./{path}")].append((digest, len(data)))
    for directory in sorted(directories, key=lambda path: path.count("/"), reverse=True):
        checksum = directory_checksum([child for child, _ in children[directory]])
        size_bytes = sum(size for _, size in children[directory])
        mode = modes.get(directory.removeprefix("./"), DIRECTORY_MODE)
        entries.append(Entry("D", mode, checksum, size_bytes, directory))
        if directory != "./":
            children[_parent(directory)].append((checksum, size_bytes))
    return Sample(Manifest.from_entries(entries), objects)


def _parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] + "/"
