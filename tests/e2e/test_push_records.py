"""`revisions`, `ancestors`, `locations`: what pushes leave behind, on a directory and real S3."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.installed import Host, write_files
from tests.e2e.lineage_steps import MOMENT, push, said
from tests.servers.seaweed import Seaweed

pytestmark = pytest.mark.usefixtures("forked_commands")

WRITERS = 6


def check_chain(host: Host, tmp_path: Path, store: str) -> None:
    first, second = push(host, tmp_path, store, "a"), push(host, tmp_path, store, "b")
    assert push(host, tmp_path, store, "b") == second, "the newest one is not recorded again"
    assert push(host, tmp_path, store, "a") == first
    for where in (
        ("--store", store),
        ("--location", store),
        ("--catalog", "other", "--store", store),
    ):
        lines = said(host, "revisions", *where)
        patterns = [
            f'{{"created_at":"{MOMENT}","id":"{one}","previous_id":{before}}}'
            for one, before in ((first, f'"{second}"'), (second, f'"{first}"'), (first, "null"))
        ]
        assert len(lines) == 3
        for line, pattern in zip(lines, patterns, strict=True):
            assert re.fullmatch(pattern, line)
    lines = said(host, "revisions", "--store", store)
    newest = json.loads(lines[0])["created_at"]
    assert said(host, "locations", "--store", store) == [
        f'{{"created_at":"{newest}","id":"{first}","location":"{store}"}}'
    ]
    assert said(host, "ancestors", "--id", first, "--store", store) == [
        f'{{"created_at":"{newest}","id":"{second}","location":"{store}"}}'
    ]
    assert said(host, "ancestors", "--id", first, "--location", "s3://else") == []
    document = json.loads(
        "".join(said(host, "revisions", "--store", store, "--limit", "1", "--json"))
    )
    assert document["more"] is True
    assert [row["id"] for row in document["revisions"]] == [first]


def test_every_push_is_recorded_in_a_directory(host: Host, file_store: str, tmp_path: Path) -> None:
    check_chain(host, tmp_path, file_store)


def test_every_push_is_recorded_in_a_bucket(
    cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    check_chain(cloud_host, tmp_path, s3_store())


def test_somebody_elses_pushes_are_read_and_ones_own_without_the_store(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    other = Host(tmp_path / "other")
    theirs = push(other, tmp_path, file_store, "theirs")
    mine = push(host, tmp_path, file_store, "mine")
    rows = [json.loads(line) for line in said(host, "revisions", "--store", file_store)]
    assert [(row["id"], row["previous_id"]) for row in rows] == [(mine, theirs), (theirs, None)]
    shutil.move(tmp_path / "store", tmp_path / "moved")
    rows = [json.loads(line) for line in said(host, "revisions", "--location", file_store)]
    assert [(row["id"], row["previous_id"]) for row in rows] == [(mine, None)]
    assert [json.loads(line)["location"] for line in said(host, "locations")] == [file_store]


def test_ids_are_those_of_snapdir_and_a_push_of_it_leaves_no_record(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    source = write_files(tmp_path / "source", {"text": b"a"})
    theirs = host.snapdir("push", source, file_store)
    assert said(host, "revisions", "--store", file_store) == []
    assert push(host, tmp_path, file_store, "a") == theirs
    [row] = map(json.loads, said(host, "revisions", "--store", file_store))
    assert list(row) == ["created_at", "id", "previous_id"]
    assert (row["id"], row["previous_id"]) == (theirs, None)
    assert host.snapdir("verify", theirs, file_store) == "True", "the record disturbs it not"


def test_none_keeps_no_record_and_asks_none(host: Host, file_store: str, tmp_path: Path) -> None:
    push(host, tmp_path, file_store, "a", "--catalog", "none")
    assert not (tmp_path / "store" / "registry").exists()
    assert not list(host.root.rglob("*.jsonl"))
    ran = host.snapctl("revisions", "--store", file_store, extra={"SNAPSYNC_CATALOG": "none"})
    assert (ran.code, ran.stdout) == (0, "")
    assert ran.stderr == "catalog disabled (--catalog none): nothing to query\n"
    ran = host.snapctl("revisions", "--json")
    assert (ran.code, ran.error["message"]) == (2, "missing --location option")


def test_directories_are_recorded_when_asked(host: Host, tmp_path: Path) -> None:
    source = write_files(tmp_path / "dätä", {"text": b"a"})
    record = tmp_path / "record.jsonl"
    first = said(host, "id", source, "--catalog", record)[0]
    write_files(source, {"text": b"b"})
    said(host, "manifest", source, SNAPSYNC_CATALOG=str(record))
    said(host, "manifest", source)
    second = said(host, "id", source, SNAPSYNC_CATALOG=str(record))[0]
    rows = said(host, "revisions", "--location", source, "--catalog", record)
    found = [json.loads(row) for row in rows]
    assert [(row["id"], row["previous_id"]) for row in found] == [(second, first), (first, None)]
    [line] = said(host, "locations", "--catalog", record)
    assert f'"location":"{source}"' in line
    theirs = tmp_path / "catalog.redb"
    theirs.write_bytes(b"redb\x1a\n")
    ran = host.snapctl("id", source, "--catalog", theirs)
    assert (ran.code, ran.stdout.strip()) == (0, second), "a failure to record is no failure"
    assert "not a record of this program" in ran.stderr
    assert theirs.read_bytes() == b"redb\x1a\n"


@contextmanager
def no_writes_below(seaweed: Seaweed, store: str, below: str) -> Iterator[None]:
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    statement = {
        "Sid": "names",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/{prefix}/{below}*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    with closing(seaweed.client()) as client:
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        try:
            yield
        finally:
            client.delete_bucket_policy(Bucket=bucket)


def test_who_may_not_write_to_the_registry_may_push(
    cloud_host: Host, seaweed: Seaweed, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    store = s3_store()
    source = write_files(tmp_path / "source", {"text": b"a"})
    with no_writes_below(seaweed, store, "registry/"):
        ran = cloud_host.snapctl("push", source, "--store", store)
    assert ran.code == 0, ran.stderr
    notes = [line for line in ran.stderr.splitlines() if "not recorded" in line]
    assert len(notes) == 1
    assert "the push is done, but not recorded in the store" in notes[0]
    assert cloud_host.snapctl("verify", "--id", ran.stdout.strip(), "--store", store).code == 0
    [row] = said(cloud_host, "revisions", "--store", store)
    assert json.loads(row)["id"] == ran.stdout.strip(), "one's own record has it"


def test_many_pushes_at_once_are_all_recorded(host: Host, file_store: str, tmp_path: Path) -> None:
    processes = []
    for number in range(WRITERS):
        source = write_files(tmp_path / f"source-{number}", {"text": str(number).encode()})
        processes.append(host.start("snapctl", "push", source, "--store", file_store))
    ended = [(process.communicate()[0].strip(), process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * WRITERS
    lines = said(host, "revisions", "--store", file_store)
    assert {json.loads(line)["id"] for line in lines} == {made for made, _ in ended}
    own = next(host.root.rglob("default.jsonl")).read_text().splitlines()
    assert len(own) == len(lines) == WRITERS
    shutil.rmtree(tmp_path / "store" / "registry")
    rows = [json.loads(line) for line in said(host, "revisions", "--store", file_store)]
    # Written one after another; their times are those of the pushes, which came at once.
    assert {row["id"] for row in rows} == {made for made, _ in ended}
    assert len({row["previous_id"] for row in rows}) == WRITERS, "one chain"


# What came of what
