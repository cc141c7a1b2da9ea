"""Fill a cache as transfers do, and check from outside what it must never break."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from blake3 import blake3

from snapd.disk.cache import Cache
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.manifest import Manifest
from snapd.model.plan import ObjectRef, refs
from tests.samples import Sample


def ref_of(body: bytes, mode: int = 0o644, path: str = "./x") -> ObjectRef:
    return ObjectRef(digest_of(body), mode, len(body), path)


def refs_of(sample: Sample) -> list[ObjectRef]:
    return list(refs(sample.manifest, sample.manifest.distinct_objects()))


def store(cache: Cache, ref: ObjectRef, body: bytes) -> None:
    """Write one object as a transfer does."""
    writer = cache.blobs.writer(ref)
    writer.start()
    writer.write(body)
    writer.finish()


def store_all(cache: Cache, sample: Sample) -> None:
    """Write the objects that are missing, as a pull does."""
    wanted = refs_of(sample)
    for ref, there in zip(wanted, cache.blobs.present(wanted), strict=True):
        if not there:
            store(cache, ref, sample.objects[ref.digest])


def staged(root: Path) -> list[str]:
    """List what lies in the staging directory, markers aside."""
    files = (path for path in (root / "staging").rglob("*") if not path.is_dir())
    return sorted(path.name for path in files if path.name != "marker")


def assert_tree(tree: Path, manifest: Manifest) -> None:
    """Check that a tree is its manifest: nothing more, nothing less, every byte and mode."""
    wanted = {entry.path.rstrip("/"): entry for entry in manifest}
    found = {f".{os.fspath(path).removeprefix(os.fspath(tree))}" for path in tree.rglob("*")}
    assert found | {"."} == set(wanted)
    for path, entry in wanted.items():
        status = os.lstat(tree / path)
        if entry.kind == "D":
            assert stat.S_ISDIR(status.st_mode), path
            assert status.st_mode & 0o7777 == entry.mode & 0o1777, path
        else:
            assert stat.S_ISREG(status.st_mode), path
            assert status.st_mode & 0o7777 == entry.mode & 0o777, path
            assert blake3((tree / path).read_bytes()).hexdigest() == entry.checksum, path


def assert_sound(root: Path, *, just_crashed: bool = False) -> None:
    """Check every byte at a final name, whether or not anybody calls it complete.

    Right after a crash the root of a tree may have another mode; the next opening mends that.
    """
    for blob in (root / "blobs").glob("*/*"):
        digest, mode = blob.name.split(".")
        assert blake3(blob.read_bytes()).hexdigest() == digest, blob
        assert blob.parent.name == digest[:2], blob
        assert blob.stat().st_mode & 0o7777 == int(mode, 8) & 0o777, blob
    for path in (root / "manifests").iterdir():
        assert blake3(path.read_bytes()).hexdigest() == path.name
    for tree in (root / "trees").iterdir():
        text = (root / "manifests" / tree.name).read_bytes()
        manifest = Manifest.parse(text, expected_id=SnapshotId(tree.name))
        current, wanted = stat.S_IMODE(tree.stat().st_mode), manifest[0].mode & 0o1777
        if just_crashed and current in (0o700, wanted | 0o700):
            tree.chmod(wanted)
        assert_tree(tree, manifest)
        tree.chmod(current)


def empty(root: Path) -> None:
    """Bring the cache back to where it holds nothing, without making its directories again."""
    for path in [*root.glob("blobs/*/*"), *root.glob("manifests/*"), *root.glob("quarantine/*")]:
        path.unlink()
    for path in [*root.glob("trees/*"), *root.glob("staging/*")]:
        shutil.rmtree(path)
    for path in root.glob("index.sqlite3*"):
        path.unlink()
