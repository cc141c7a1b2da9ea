from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from snapd.model.manifest import Manifest
from tests.trees import Files, make_tree, manifest_of
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon

FILES: Files = {"a": (0o644, b"a"), "d/b": (0o600, b"bb"), "su": (0o755, b"s")}


def cache_with(directory: Path, files: Files) -> Manifest:
    manifest = make_tree(directory / "trees" / "new", files)
    (directory / "trees" / "new").rename(directory / "trees" / manifest.id)
    (directory / "manifests").mkdir()
    (directory / "manifests" / manifest.id).write_bytes(manifest.text)
    return manifest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "somewhere"


@pytest.fixture
def manifest(cache: Path) -> Manifest:
    return cache_with(cache, FILES)


def test_lays_out_from_a_cache_and_prints_where(
    tmp_path: Path, cache: Path, manifest: Manifest
) -> None:
    ran = snapctl("checkout", "--id", manifest.id, "out", "--from-cache", str(cache), home=tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{tmp_path / 'out'}\n"
    assert "done: 3 files by" in ran.stderr
    assert manifest_of(tmp_path / "out").id == manifest.id


def test_takes_it_from_the_daemon_s_cache_else_the_user_s(tmp_path: Path, cache: Path) -> None:
    theirs = cache_with(cache, FILES)
    own = cache_with(tmp_path / "cache" / "snapsync", {**FILES, "more": (0o644, b"")})
    places = {"state_directory": str(cache), "trees_directory": str(cache / "trees")}
    status = {("GET", "/v1/status"): lambda it: it.reply(200, places)}
    socket = tmp_path / "s"
    for manifest in (theirs, own):
        with scripted_daemon(socket, status):
            ran = snapctl(
                "checkout", "--id", manifest.id, "out", "--delete", "--socket", str(socket),
                home=tmp_path,
            )  # fmt: skip
        socket.unlink()
        assert ran.returncode == 0, ran.stderr
        assert manifest_of(tmp_path / "out").id == manifest.id
    ran = snapctl("checkout", "--id", theirs.id, "out", "--socket", str(socket), home=tmp_path)
    assert ran.returncode == 10
    assert str(tmp_path / "cache" / "snapsync") in ran.stderr


def test_a_dry_run_lists_in_words_and_in_json(
    tmp_path: Path, cache: Path, manifest: Manifest
) -> None:
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "old").touch()
    (tmp_path / "out" / "a").write_bytes(b"A")
    words = ["checkout", "--id", manifest.id, "out", "--delete", "--dryrun", "--exclude", "^./runs"]
    extra = {"SNAPSYNC_CACHE_DIR": str(cache)}

    plain = snapctl(*words, home=tmp_path, extra=extra)
    as_json = snapctl(*words, "--json", home=tmp_path, extra=extra)

    assert plain.stdout == "M ./a\nA ./d/\nA ./d/b\nA ./su\nD ./old\n"
    document = json.loads(as_json.stdout)
    assert document["deleted"] == ["./old"]
    assert document["changes"][0] == {"status": "M", "path": "./a"}
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "old", "runs"]


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["checkout", "--id", "xyz", "out"], 2, "not a snapshot ID"),
        (["checkout", "--id", "0" * 64, "out"], 10, "no cache here"),
        (["checkout", "--id", "ID", "."], 2, "the destination holds"),
        (["checkout", "--id", "ID", "somewhere/trees"], 2, "destination"),
        (["checkout", "--id", "ID", "out", "--exclude", "x"], 2, "--delete"),
        (["checkout", "--id", "ID", "out", "--delete", "--exclude", "("], 2, "'('"),
        (["checkout", "--id", "ID", "out", "--mode", "move"], 2, "move"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    tmp_path: Path, cache: Path, manifest: Manifest, words: list[str], exit_code: int, said: str
) -> None:
    typed = [manifest.id if word == "ID" else word for word in words]

    ran = snapctl(*typed, home=tmp_path, extra={"SNAPSYNC_CACHE_DIR": str(cache)})

    assert ran.returncode == exit_code
    assert said in ran.stderr
    assert "hint: " in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_dropped_bit_is_a_warning(tmp_path: Path) -> None:
    manifest = cache_with(tmp_path / "c", {"su": (0o4755, b"")})
    words = ["checkout", "--id", manifest.id, "out", "--from-cache", str(tmp_path / "c")]

    assert "warning: dropped the set-uid" in snapctl(*words, home=tmp_path).stderr
    kept = snapctl(*words, "--keep-setid", home=tmp_path)

    assert "warning" not in kept.stderr
    assert manifest_of(tmp_path / "out").id == manifest.id
