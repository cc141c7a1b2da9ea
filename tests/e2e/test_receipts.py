"""What a pull proved, written down and held against the disk again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from snapd import __version__
from tests.e2e.installed import Host
from tests.samples import Sample, sample

FILES = {"a": b"hello", "d/b": b"x" * 300_000, "d/same": b"hello"}
MORE = {"a": b"hello", "c": b"another"}
LINE = re.compile(
    r"snapsync attest ok id=(?P<id>\S+) files=(?P<files>\d+) bytes=(?P<bytes>\d+) "
    r"store=(?P<store>\S+) pulled_at=(?P<pulled>\S+Z) verified_at=(?P<verified>\S+Z) "
    r"path=(?P<path>\S+)\n"
)


@pytest.fixture
def store(made: Sample, tmp_path: Path) -> str:
    root = tmp_path / "store"
    for key, data in (made.keys() | sample(MORE).keys()).items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    return f"file://{root}"


def test_a_pull_with_a_daemon_is_attested(
    host: Host, made: Sample, store: str, tmp_path: Path
) -> None:
    note, dest = tmp_path / "receipt.json", tmp_path / "data"
    host.variables["SNAPSYNC_CACHE_DIR"] = ""
    with host.daemon("--store", store, "--cache-dir", str(host.cache)):
        ran = host.snapctl(
            "pull", "--id", made.id, "--store", store, dest, "--receipt", note, "--quiet"
        )
        assert (ran.code, ran.stdout) == (0, f"{dest}\n"), ran.stderr
        receipt = json.loads(note.read_text())
        assert (receipt["id"], receipt["store"], receipt["version"]) == (
            made.id,
            store,
            __version__,
        )
        assert receipt["verified"] == {"objects": 2, "bytes": 300_005}
        assert receipt["cached"]["objects"] == 0
        assert (receipt["files"], receipt["bytes"]) == (3, 300_010)
        assert receipt["dest"] == str(dest)

        kept = host.snapctl("receipt", made.id, "--json").document
        assert kept == {name: value for name, value in receipt.items() if name != "dest"}
        shown = host.snapctl("receipt", made.id).stdout
        assert f"snapsync {__version__} on {receipt['host']}" in shown
        assert "2 objects, 293.0 KiB on the way in" in shown

        tree = receipt["tree"]
        for words, place in (
            ([note], str(dest)),
            ([made.id], tree),
            ([dest], str(dest)),
            ([dest, "--id", made.id], str(dest)),
            ([note, tree], tree),
        ):
            attested = host.snapctl("attest", *words)
            assert attested.code == 0, attested.stderr
            found = LINE.fullmatch(attested.stdout)
            assert found is not None, attested.stdout
            assert found["path"] == place
            assert (found["id"], found["store"]) == (made.id, store)
            assert (found["files"], found["bytes"]) == ("3", "300010")
            assert found["pulled"] == receipt["pulled_at"] < found["verified"]
        document = host.snapctl("attest", dest, "--json").document
        assert (document["path"], document["receipt"]["id"]) == (str(dest), made.id)


def test_what_was_cached_and_what_came_is_told_apart(host: Host, made: Sample, store: str) -> None:
    with host.daemon("--store", store):
        assert host.snapctl("pull", "--id", made.id, "--store", store).code == 0
        other = sample(MORE).id
        assert host.snapctl("pull", "--id", other, "--store", store).code == 0
        receipt = host.snapctl("receipt", other, "--json").document
        assert receipt["verified"] == {"objects": 1, "bytes": 7}
        cached = receipt["cached"]
        assert (cached["objects"], cached["bytes"], cached["objects_unrecorded"]) == (1, 5, 0)
        assert cached["verified_from"] == cached["verified_until"] <= receipt["pulled_at"]
        assert ", verified 20" in host.snapctl("receipt", other).stdout
        warm = host.snapctl("pull", "--id", made.id, "--store", store)
        assert warm.code == 0
        first = host.snapctl("receipt", made.id, "--json").document
        assert first["verified"]["objects"] == 2


@pytest.mark.parametrize("how", ["byte", "mode", "extra", "missing"])
def test_whatever_differs_is_exit_12(
    host: Host, made: Sample, store: str, tmp_path: Path, how: str
) -> None:
    note, dest = tmp_path / "receipt.json", tmp_path / "data"
    words = ("pull", "--standalone", "--id", made.id, "--store", store, dest, "--receipt", note)
    assert host.snapctl(*words).code == 0
    assert host.snapctl("attest", note).code == 0
    victim = dest / "d" / "b"
    if how == "byte":
        victim.write_bytes(b"x" * 299_999 + b"y")
    elif how == "mode":
        victim.chmod(0o600)
    elif how == "extra":
        (dest / "more").write_text("")
    else:
        victim.unlink()
    for subject in ([note], [dest, "--id", made.id]):
        ran = host.snapctl("attest", *subject, "--json")
        assert (ran.code, ran.stdout, ran.error["code"]) == (12, "", "tree_differs")
        named = [each["path"] for each in ran.error["details"]["differences"]]
        assert named == (["./more"] if how == "extra" else ["./d/b"])
    unnamed = host.snapctl("attest", dest, "--json")
    assert (unnamed.code, unnamed.error["code"]) == (12, "tree_differs")
    assert host.snapctl("attest", made.id).code == 0, "the tree itself is untouched"


def test_a_changed_tree_and_a_changed_receipt_are_exit_12(
    host: Host, made: Sample, store: str, tmp_path: Path
) -> None:
    note = tmp_path / "receipt.json"
    words = ("pull", "--standalone", "--id", made.id, "--store", store, "--receipt", note)
    assert host.snapctl(*words).code == 0
    receipt = json.loads(note.read_text())
    for change in ({"files": 4}, {"bytes": 1}, {"id": "0" * 64}):
        (tmp_path / "forged.json").write_text(json.dumps(receipt | change))
        forged = host.snapctl("attest", tmp_path / "forged.json", "--json")
        assert (forged.code, forged.stdout) == (12, ""), change
    mismatch = host.snapctl("attest", note, "--id", "0" * 64)
    assert mismatch.code == 12
    Path(receipt["tree"], "d", "b").write_bytes(b"y" * 300_000)
    for subject in (note, made.id):
        ran = host.snapctl("attest", subject)
        assert (ran.code, ran.stdout) == (12, "")
        assert "./d/b" in ran.stderr


def test_words_that_mean_nothing(host: Host, store: str, tmp_path: Path) -> None:
    junk = tmp_path / "junk.json"
    junk.write_text("{}")
    assert host.snapctl("attest", junk).code == 2
    assert host.snapctl("attest", tmp_path / "absent").code == 2
    assert host.snapctl("attest", tmp_path, tmp_path).code == 2
    unknown = host.snapctl("attest", "0" * 64, "--json")
    assert (unknown.code, unknown.error["code"]) == (10, "no_such_snapshot")
    assert host.snapctl("receipt", "0" * 64).code == 10
    assert host.snapctl("receipt", "x").code == 2
    words = ("pull", "--id", "0" * 64, "--store", store, "--detach", "--receipt", junk)
    assert host.snapctl(*words).code == 2
    assert junk.read_text() == "{}"


def test_a_lost_receipt_is_made_anew_and_a_bad_file_is_told(
    host: Host, made: Sample, store: str, tmp_path: Path
) -> None:
    words = ("pull", "--standalone", "--id", made.id, "--store", store, "--receipt")
    assert host.snapctl(*words, tmp_path / "first.json").code == 0
    (host.cache / "receipts" / f"{made.id}.json").unlink()
    assert host.snapctl("receipt", made.id).code == 10
    assert host.snapctl(*words, tmp_path / "second.json").code == 0
    second = json.loads((tmp_path / "second.json").read_text())
    assert second["verified"]["objects"] == 0
    assert second["cached"]["objects"] == 2
    assert host.snapctl("attest", tmp_path / "second.json").code == 0
    absent = tmp_path / "absent" / "receipt.json"
    ran = host.snapctl(*words, absent, "--json")
    assert ran.code == 1
    assert str(absent) in ran.error["message"]
    assert ran.stdout == ""
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_special_bits_that_are_withheld_are_told_and_nothing_else_is_forgiven(
    host: Host, tmp_path: Path
) -> None:
    made = sample({"a": b"1", "d/b": b"2"}, modes={"a": 0o4755, "d/": 0o2755})
    store = tmp_path / "special"
    for key, data in made.keys().items():
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).write_bytes(data)
    note, dest = tmp_path / "receipt.json", tmp_path / "data"
    words = ("pull", "--standalone", "--id", made.id, "--store", f"file://{store}")
    assert host.snapctl(*words, dest, "--receipt", note).code == 0
    linked = tmp_path / "host" / "linked"
    as_links = ("--mode", "hardlink", linked)
    assert host.snapctl("checkout", "--id", made.id, *as_links).code == 0
    for subject in ([note], [made.id], [linked, "--id", made.id]):
        ran = host.snapctl("attest", *subject)
        assert ran.code == 0, ran.stderr
        assert ran.stdout.endswith(" special_bits=withheld\n")
    (dest / "a").chmod(0o744)
    assert host.snapctl("attest", note).code == 12
    kept = tmp_path / "kept"
    assert host.snapctl("checkout", "--id", made.id, "--keep-setid", kept).code == 0
    exact = host.snapctl("attest", kept, "--id", made.id, "--json").document
    assert exact["special_bits_withheld"] is False


def test_a_receipt_names_the_node_that_the_daemon_was_told(
    host: Host, made: Sample, store: str
) -> None:
    host.variables["SNAPSYNC_NODE_NAME"] = "node-7"
    with host.daemon("--store", store):
        assert host.snapctl("pull", "--id", made.id, "--store", store).code == 0
        assert host.snapctl("receipt", made.id, "--json").document["host"] == "node-7"
