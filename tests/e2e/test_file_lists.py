"""`manifest --format json --sha256` and `verify --manifest`, beside what sha256sum says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installed import Host, Ran, write_files

pytestmark = pytest.mark.usefixtures("forked_commands")

FILES = {"a.txt": b"a", "d/b ü": b"b" * 2_000_000, "d/again": b"a", "e": b""}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data", FILES)


def listed(host: Host, *words: str | Path) -> Any:
    ran = host.snapctl("manifest", *words, "--format", "json", "--sha256")
    assert ran.code == 0, ran.stderr
    return ran.document


def refused(ran: Ran, exit_code: int, word: str) -> None:
    assert ran.code == exit_code, ran.stderr
    assert word in ran.stderr
    assert "hint: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_list_says_what_sha256sum_says_and_both_are_checked(host: Host, data: Path) -> None:
    document = listed(host, data)
    assert document["snapshot_id"] == host.snapctl("id", data).stdout.strip()
    sums = {name: sha256(content).hexdigest() for name, content in FILES.items()}
    assert {each["path"]: each["sha256"] for each in document["files"]} == sums
    assert {each["path"]: each["size"] for each in document["files"]} == {
        name: len(content) for name, content in FILES.items()
    }
    plain = host.snapctl("manifest", data, "--format", "json").document
    assert "sha256" not in plain["files"][0]

    (data.parent / "ours.json").write_text(json.dumps(document))
    (data.parent / "plain.json").write_text(json.dumps(plain))
    (data.parent / "simple.json").write_text(json.dumps(sums))
    lines = subprocess.run(
        ["sha256sum", *FILES], cwd=data, capture_output=True, text=True, check=True
    )
    (data.parent / "SHA256SUMS").write_text(lines.stdout)
    for name in ("ours.json", "plain.json", "simple.json", "SHA256SUMS"):
        ran = host.snapctl("verify", data, "--manifest", data.parent / name)
        assert ran.code == 0, ran.stderr
        assert ran.stdout == f"{data} is what {data.parent / name} lists: 4 files\n"


def test_what_differs_is_told_line_by_line(host: Host, data: Path) -> None:
    # The list lies in the directory, as it often does, and is no extra file.
    text = json.dumps(listed(host, data))
    (data / "manifest.json").write_text(text)
    assert host.snapctl("verify", data, "--manifest", data / "manifest.json").code == 0
    (data / "a.txt").write_bytes(b"A")
    (data / "e").unlink()
    (data / "new\x1b").write_bytes(b"")
    ran = host.snapctl("verify", data, "--manifest", data / "manifest.json")
    assert ran.stdout.splitlines() == [
        f"changed a.txt: sha256 {sha256(b'A').hexdigest()}, not {sha256(b'a').hexdigest()}",
        "missing e",
        r"extra 'new\x1b'",
    ]
    refused(ran, 12, "1 missing, 1 extra, 1 changed")
    ran = host.snapctl("verify", data, "--manifest", "-", "--json", given=text)
    assert (ran.code, ran.stdout) == (12, "")
    assert ran.error["code"] == "tree_differs"
    details = ran.error["details"]
    assert (details["missing_total"], details["extra_total"], details["changed_total"]) == (1, 2, 1)
    assert details["differences"][2] == {"kind": "extra", "path": "manifest.json"}


def test_a_snapshot_is_listed_from_where_its_bytes_are(
    cloud_host: Host, s3_store: Callable[[], str], data: Path
) -> None:
    host, store = cloud_host, s3_store()
    snapshot_id = host.snapctl("push", data, "--store", store).stdout.strip()
    by_directory = listed(host, data)
    refused(
        host.snapctl("manifest", "--id", snapshot_id, "--format", "json", "--sha256"),
        10,
        "no store is named",
    )
    assert listed(host, "--id", snapshot_id, "--store", store) == by_directory
    with host.daemon("--store", "*"):
        assert host.snapctl("pull", "--id", snapshot_id, "--store", store).code == 0
        assert listed(host, "--id", snapshot_id) == by_directory
        document = json.dumps(by_directory)
        ran = host.snapctl("verify", "--id", snapshot_id, "--manifest", "-", given=document)
        assert ran.code == 0, ran.stderr
        # A link in the place of the directory, as a checkout may be.
        link = data.parent / "current"
        assert host.snapctl("checkout", "--id", snapshot_id, link, "--mode", "symlink").code == 0
        ran = host.snapctl("verify", link, "--manifest", "-", given=document)
        assert ran.code == 0, ran.stderr
    other = json.dumps([{**each, "size": None} for each in by_directory["files"][:-1]])
    ran = host.snapctl(
        "verify", "--id", snapshot_id, "--store", store, "--manifest", "-", given=other
    )
    assert ran.stdout == "extra e\n"
    refused(ran, 12, "1 extra")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"../../etc/passwd": "HASH"}', ". or .."),
        ('[{"path": "/etc/passwd", "sha256": "HASH"}]', "absolute"),
        ('{"a\\u001b[2J": "HASH"}', "control character"),
        ("HASH  ../a\n", ". or .."),
        ("\udcff", "UTF-8"),
        ("{", "not JSON"),
        ("", "lists no file"),
    ],
)
def test_a_hostile_or_broken_list_is_refused(host: Host, data: Path, text: str, word: str) -> None:
    path = data.parent / "list"
    path.write_bytes(text.replace("HASH", "ab" * 32).encode("utf-8", "surrogateescape"))
    ran = host.snapctl("verify", data, "--manifest", path)
    refused(ran, 17, word)
    assert ran.stdout == ""
    assert "\x1b" not in ran.stderr


def test_wrong_words_are_told(host: Host, data: Path) -> None:
    snapshot_id = "0" * 64
    for words, word in (
        (["manifest", data, "--sha256"], "--format json"),
        (["manifest", data, "--format", "json", "--absolute"], "--absolute"),
        (["manifest", data, "--id", snapshot_id, "--format", "json"], "--id"),
        (["verify", "--manifest", "x"], "DIRECTORY or --id"),
        (["verify", data, "--id", snapshot_id, "--manifest", "x"], "DIRECTORY or --id"),
        (["verify", data, "--deep", "--manifest", "x"], "--deep"),
        (["verify", data, "--manifest", data.parent / "absent"], "can't read the list"),
        (["verify", data, "--manifest", data], "can't read the list"),
    ):
        refused(host.snapctl(*words), 2, word)
    into_itself = f"snapctl manifest {data} --format json --sha256 > {data}/list.json"
    refused(host.command("sh", "-c", into_itself), 2, "list itself")
