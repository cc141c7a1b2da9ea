from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapd.model.ids import digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.manifest import Manifest
from tests.trees import Files, make_tree
from tests.unit.snapctl.running import said_beside_progress, snapctl

FILES: Files = {"a": (0o644, b"a"), "d/b": (0o600, b"bb")}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    manifest = make_tree(tmp_path / "tree", FILES)
    write(tmp_path / "store" / manifest_key(manifest.id), manifest.text)
    for _, content in FILES.values():
        write(tmp_path / "store" / object_key(digest_of(content)), content)
    return manifest


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_a_good_snapshot_and_a_good_directory(tmp_path: Path, manifest: Manifest) -> None:
    words = ["verify", "--id", manifest.id]
    store = ["--store", f"file://{tmp_path / 'store'}"]

    for ran in (snapctl(*words, *store, home=tmp_path), snapctl(*words, "tree", home=tmp_path)):
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout == f"{manifest.id} verified: 2 files, 3 B\n"
    ran = snapctl(*words, *store, "--json", home=tmp_path)
    assert json.loads(ran.stdout) == {
        "snapshot_id": manifest.id,
        "where": f"file://{tmp_path / 'store'}",
        "files": 2,
        "size_bytes": 3,
    }


def test_damage_in_a_store_is_exit_12_and_names_object_and_path(
    tmp_path: Path, manifest: Manifest
) -> None:
    digest = digest_of(b"bb")
    (tmp_path / "store" / object_key(digest)).write_bytes(b"BB")

    ran = snapctl(
        "verify", "--id", manifest.id, "--store", f"file://{tmp_path / 'store'}", "--json",
        home=tmp_path,
    )  # fmt: skip

    assert ran.returncode == 12
    error = json.loads(ran.stderr.splitlines()[-1])
    assert (error["code"], error["details"]["problems"]) == (
        "digest_mismatch",
        [{"code": "digest_mismatch", "object": digest, "path": "./d/b"}],
    )


def test_a_directory_that_differs_is_explained_by_the_store_s_manifest(
    tmp_path: Path, manifest: Manifest
) -> None:
    (tmp_path / "tree" / "a").write_bytes(b"A")
    words = ["verify", "--id", manifest.id, "tree"]

    unexplained = snapctl(*words, home=tmp_path)
    explained = snapctl(*words, "--store", f"file://{tmp_path / 'store'}", home=tmp_path)
    unreachable = snapctl(*words, "--store", f"file://{tmp_path / 'none'}", home=tmp_path)

    assert [ran.returncode for ran in (unexplained, explained, unreachable)] == [12, 12, 12]
    assert "M ./a" not in unexplained.stderr
    assert "1 differences, the first is M ./a" in explained.stderr
    assert "can't name the differences" in unreachable.stderr


def test_what_is_wrong_is_said_with_its_exit_code(tmp_path: Path, manifest: Manifest) -> None:
    store = ["--store", f"file://{tmp_path / 'store'}"]
    for words, exit_code in (
        (["verify", "--id", manifest.id], 2),
        (["verify", "--id", "1" * 64, *store], 10),
        (["verify", "--id", manifest.id, "--store", "ftp://x"], 2),
        (["verify", "--id", manifest.id, "--store", f"file://{tmp_path / 'none'}"], 13),
        (["verify", "--id", manifest.id, "no-such-directory"], 1),
    ):
        ran = snapctl(*words, home=tmp_path)
        assert ran.returncode == exit_code, (words, ran.stderr)
        assert "hint: " in ran.stderr


@pytest.fixture
def cached(tmp_path: Path, manifest: Manifest) -> Path:
    store = f"file://{tmp_path / 'store'}"
    ran = snapctl(
        "pull", "--standalone", "--id", manifest.id, "--store", store, home=tmp_path
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return Path(ran.stdout.strip())


def test_a_tree_is_proven_and_repaired(tmp_path: Path, manifest: Manifest, cached: Path) -> None:
    words = ["verify", "--standalone", "--deep", manifest.id]

    ran = snapctl(*words, home=tmp_path)
    assert (ran.returncode, said_beside_progress(ran, "verify ")) == (0, [])
    assert ran.stdout == f"{manifest.id} verified: 2 files, 3 B\n"

    (cached / "a").write_bytes(b"X")
    ran = snapctl(*words, home=tmp_path)
    assert ran.returncode == 0
    assert "1 damaged objects were fetched again and put right" in ran.stderr
    assert (cached / "a").read_bytes() == b"a"

    ran = snapctl(*words, "--json", home=tmp_path)
    assert json.loads(ran.stdout) == {
        "snapshot_id": manifest.id,
        "tree": str(cached),
        "files": 2,
        "size_bytes": 3,
        "repaired": 0,
    }


def test_a_proof_names_its_snapshot_in_either_place(tmp_path: Path) -> None:
    for words in (["--deep"], ["--deep", "nonsense"], ["--deep", "--id", "nonsense"], ["./dir"]):
        assert snapctl("verify", *words, home=tmp_path).returncode == 2
