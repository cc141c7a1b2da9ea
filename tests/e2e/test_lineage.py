"""Where bytes are from and what they led to, through the installed commands on real stores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installed import Host, Ran, write_files
from tests.e2e.lineage_steps import MOMENT, push, said

pytestmark = pytest.mark.usefixtures("forked_commands")

MANY_EVENTS = """
import sys, time
import anyio
from snapd.model.registry import Author
from snapd.model.settings import TransferSettings
from snapd.model.stages import remove_alias, set_alias
from snapd.model.uris import parse_store_uri
from snapd.model.versions import parse_version
from snapd.registry.names import Registry
from snapd.remote.directory import DirectoryStore

def change(model):
    for _ in range(150):
        model = set_alias(model, "best", parse_version("v1.0.0"), author)
        model = remove_alias(model, "best", author)
    return model

registry = Registry(DirectoryStore(parse_store_uri(sys.argv[1]), TransferSettings()))
for turn in range(3):
    author = Author("ann", time.time(), f"t{turn}")
    anyio.run(registry.change_model, "clf", change, author)
"""


def record_run(host: Host, tmp_path: Path, store: str, run_id: str, **fields: Any) -> None:
    document = {"run_id": run_id, "code_commit": "1a2b3c4d5e6f", **fields}
    path = tmp_path / f"{run_id}.json"
    path.write_text(json.dumps(document))
    ran = host.snapctl("run", "record", path, "--store", store)
    assert ran.code == 0, ran.stderr


# The record of pushes


class Site:
    """A store with raw data, data made of it, and two models, of which one is in production."""

    def __init__(self, host: Host, store: str, tmp_path: Path) -> None:
        self.host, self.store = host, store
        self.raw = push(host, tmp_path, store, "raw", "--dataset", "raw@v1.0.0")
        self.data = push(host, tmp_path, store, "data", "--dataset", "iris@v1.0.0")
        self.old = push(host, tmp_path, store, "old")
        self.new = push(host, tmp_path, store, "new")
        record = (host, tmp_path, store)
        record_run(*record, "clean", data_snapshot=self.raw, outputs=[self.data])
        record_run(*record, "train-1", data_snapshot="iris@v1.0.0", outputs=[self.old])
        environment = {"python": "3.11.9", "image": "ghcr.io/x@sha256:1f"}
        record_run(*record, "train-2", data_snapshot=self.data, outputs=[self.new], env=environment)
        for version, made, run in (
            ("v1.0.0", self.old, "train-1"),
            ("v2.0.0", self.new, "train-2"),
        ):
            self.said("model", "add", f"clf@{version}", "--id", made, "--run", run)
            note = ("--note", f"{version} is good", "--by", "ann")
            self.said("model", "promote", f"clf@{version}", "--to", "production", *note)

    def said(self, *words: str | Path, code: int = 0) -> list[str]:
        return said(self.host, *words, "--store", self.store, code=code)

    def told(self, *words: str | Path) -> Any:
        return json.loads("".join(self.said(*words, "--json")))

    def refused(self, *words: str | Path) -> Ran:
        ran = self.host.snapctl(*words, "--store", self.store, "--json")
        assert ran.code != 0
        assert ran.stdout == ""
        assert ran.error["hint"]
        return ran


@pytest.fixture
def site(cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path) -> Site:
    return Site(cloud_host, s3_store(), tmp_path)


def test_a_session_of_questions(site: Site, tmp_path: Path) -> None:
    """One site, many questions: making it takes longer than asking."""
    check_lineage(site)
    check_impact(site)
    check_whence(site, tmp_path)
    check_audit(site)


def check_lineage(site: Site) -> None:
    lines = site.said("lineage", "clf@production")
    assert lines[0] == f"clf@v2.0.0 (production)  {site.new}"
    assert [line.strip("│├└─ ") for line in lines[1:]][:5] == [
        "made from",
        "run train-2 (commit 1a2b3c4d5e6f)",
        f"iris@v1.0.0  {site.data}",
        "run clean (commit 1a2b3c4d5e6f)",
        f"raw@v1.0.0  {site.raw}",
    ]
    document = site.told("lineage", "iris@v1.0.0", "--direction", "down")
    keys = {node["key"] for node in document["nodes"]}
    assert {"run:train-1", "run:train-2", f"snapshot:{site.new}", "model:clf@v2.0.0"} <= keys
    assert "run:clean" not in keys
    assert document["complete"] is True
    edge = {"source": f"snapshot:{site.data}", "target": "run:train-2", "kind": "used"}
    assert edge in document["edges"]
    assert document == json.loads(
        "".join(site.said("lineage", "iris@v1.0.0", "--direction", "down", "--format", "json"))
    )
    short = site.told("lineage", "run:clean", "--depth", "1")
    assert set(short["unexplored"]) == {f"snapshot:{site.raw}", f"snapshot:{site.data}"}
    drawn = site.said("lineage", "train-2", "--format", "mermaid")
    assert drawn[0] == "flowchart LR"
    assert any("clf@v2.0.0 (production)<br>" in line for line in drawn)
    drawn = site.said("lineage", site.raw, "--format", "dot")
    assert (drawn[0], drawn[-1]) == ("digraph lineage {", "}")
    assert len(site.said("lineage", "clf")) > len(site.said("lineage", "clf@v1.0.0"))
    assert site.refused("lineage", "irsi").error["details"]["nearest"] == ["iris"]
    assert site.refused("lineage", "0" * 64).error["code"] == "no_such_snapshot"
    assert site.refused("lineage", "stage:iris").code == 2
    unnamed = push(site.host, site.host.root, site.store, "unnamed")
    assert site.said("lineage", unnamed, "--depth", "1") == [unnamed]
    site.said("dataset", "add", "train-1@v1.0.0", "--id", unnamed)
    assert "run:train-1" in site.refused("lineage", "train-1").error["hint"]


def check_impact(site: Site) -> None:
    heading, row = site.said("lineage", "raw@v1.0.0", "--impact")
    assert heading.split() == ["MODEL", "STAGE", "SNAPSHOT", "THROUGH"]
    assert row.split()[:3] == ["clf@v2.0.0", "production", site.new]
    assert row.endswith("run clean (commit 1a2b3c4d5e6f) -> run train-2 (commit 1a2b3c4d5e6f)")
    [model] = site.told("lineage", site.data, "--impact")["models"]
    assert model["steps"] == [f"snapshot:{site.data}", "run:train-2", f"snapshot:{site.new}"]
    assert site.told("lineage", site.old, "--impact") == {"models": [], "complete": True}


def check_whence(site: Site, tmp_path: Path) -> None:
    found = write_files(tmp_path / "found", {"text": b"new"})
    lines = site.said("whence", found)
    assert lines[0] == f"{found} is {site.new}"
    assert lines[1].startswith("is        model clf@v2.0.0 (production), ")
    assert lines[2] == "made by   run train-2"
    assert re.fullmatch(f"pushed    {MOMENT} to {site.store} by .+@.+", lines[3])
    assert len(lines) == 4, "what the store tells is not said again"
    told = site.told("whence", site.data)
    assert (told["made_by"], told["used_by"]) == (["clean"], ["train-1", "train-2"])
    assert [version["name"] for version in told["versions"]] == ["iris"]
    told = site.told("whence", found / "text")
    assert [(each["snapshot_id"], each["versions"]) for each in told["part_of"]] == [
        (site.new, ["clf@v2.0.0"])
    ]
    assert told["part_of"][0]["paths"] == ["./text"]
    assert told == site.told("whence", told["digest"]) | {
        "kind": "file",
        "path": str(found / "text"),
        "id": None,
    }
    inner = write_files(tmp_path / "inner", {"other name": b"old"})
    told = site.told("whence", inner)
    assert [(each["snapshot_id"], each["paths"]) for each in told["part_of"]] == [
        (site.old, ["./"])
    ], "the same bytes under another name"
    ran = site.host.snapctl("whence", found / "text", "--snapshots", "1", "--store", site.store)
    assert ran.code == 10, "the latest name is of another one"
    assert "only 1 snapshots were looked through" in ran.stderr
    unknown = write_files(tmp_path / "unknown", {"text": b"never pushed"})
    assert site.refused("whence", unknown).error["code"] == "nothing_known"
    assert site.refused("whence", unknown).code == 10
    assert site.refused("whence", "nowhere").code == 2


def check_audit(site: Site) -> None:
    events = {
        (event["version"], event["to"]): event
        for event in site.told("model", "history", "clf")["events"]
    }
    first, second = (events[version, "production"]["at"] for version in ("v1.0.0", "v2.0.0"))
    for at, version, made in ((first, "v1.0.0", site.old), (second, "v2.0.0", site.new)):
        [found] = site.told("audit", "clf@production", "--at", at)["found"]
        assert (found["version"], found["snapshot_id"]) == (version, made)
        assert (found["since"]["by"], found["since"]["note"]) == ("ann", f"{version} is good")
    [found] = site.told("audit", "clf@production", "--at", first)["found"]
    assert found["until"]["at"] == second
    assert (found["run"]["run_id"], found["run"]["code"]["commit"]) == ("train-1", "1a2b3c4d5e6f")
    assert found["data"] == [{"snapshot_id": site.data, "called": "iris@v1.0.0"}]
    lines = dict(
        line.split(maxsplit=1) for line in site.said("audit", "clf@production", "--at", "now")
    )
    assert lines["version"] == "clf@v2.0.0"
    assert lines["data"] == f"iris@v1.0.0 {site.data}"
    assert lines["code"] == "1a2b3c4d5e6f"
    assert "image   ghcr.io/x@sha256:1f" in "\n".join(site.said("audit", "clf@production"))
    ran = site.host.snapctl("audit", "clf@production", "--at", "2020-01-01", "--store", site.store)
    assert ran.code == 10
    assert "no zone is given: 2020-01-01T00:00:00.000Z is meant, in UTC" in ran.stderr
    assert "its history begins at" in ran.stderr
    assert site.refused("audit", "clf@staging").error["code"] == "nothing_then"
    assert site.refused("audit", "clf@stagin").error["code"] == "no_such_version"
    assert site.refused("audit", "clf@v1.0.0").code == 2
    assert site.refused("audit", "clf@production", "--at", "yesterday").code == 2


def test_whence_looks_into_the_caches_of_this_node(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    """Nothing of it has a name, and no store is asked."""
    write_files(tmp_path / "source", {"x/a\x1b[2J": b"hostile"})
    made = push(host, tmp_path, file_store, "unnamed bytes", "--catalog", "none")
    assert host.snapctl("whence", tmp_path / "source/text").code == 10
    pulled = host.snapctl("pull", "--id", made, "--store", file_store, "--standalone")
    assert pulled.code == 0, pulled.stderr
    copy = write_files(tmp_path / "copy", {"x": b"unnamed bytes"}) / "x"
    lines = said(host, "whence", copy)
    assert lines[1:] == [f"part of   {made} (cached here)", "          ./text"]
    hostile = write_files(tmp_path / "copy", {"y": b"hostile"}) / "y"
    assert said(host, "whence", hostile)[2:] == ["          './x/a\\x1b[2J'"]
    [manifest] = (path for path in host.cache.rglob("manifests/*") if path.name == made)
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    ran = host.snapctl("whence", copy)
    assert ran.code == 10
    assert f"left out: the manifest of {made} is damaged" in ran.stderr


def test_archived_events_are_walked_too(host: Host, file_store: str, tmp_path: Path) -> None:
    """More events than the document keeps: the first promotion lies in a page."""
    made = push(host, tmp_path, file_store, "a", "--model", "clf@v1.0.0")
    said(host, "model", "promote", "clf@v1.0.0", "--to", "production", SNAPSYNC_STORE=file_store)
    path = tmp_path / "store/registry/models/clf/registry.json"
    done = host.command(str(host.program("python")), "-c", MANY_EVENTS, file_store)
    assert done.code == 0, done.stderr
    document = json.loads(path.read_text())
    assert document["archived"]["events"] >= 200
    ran = host.snapctl("audit", "clf@production", "--json", "--store", file_store)
    [found] = ran.document["found"]
    assert (found["snapshot_id"], found["since"]["number"]) == (made, 2)
