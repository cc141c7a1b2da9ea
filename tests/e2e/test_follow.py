"""Following through the installed commands: real daemons, real switches, a real S3 server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.following import (
    REFERENCE,
    Models,
    served,
    until_live,
)
from tests.e2e.installed import Host


@pytest.fixture
def models(host: Host, tmp_path: Path) -> Models:
    return Models(host, f"file://{tmp_path}/store", tmp_path)


@pytest.fixture
def cloud(cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path) -> Models:
    return Models(cloud_host, s3_store(), tmp_path)


def test_a_promotion_reaches_a_node_and_a_rollback_downloads_nothing(
    cloud: Models, tmp_path: Path
) -> None:
    old, new = cloud.add("v0.1.0"), cloud.add("v0.2.0")
    cloud.promote("v0.1.0")
    dest = tmp_path / "srv" / "iris_clf"
    dest.parent.mkdir()
    with cloud.node("node") as (node, _daemon):
        words = ("--dest", dest, "--poll", "1s", "--store", cloud.store)
        asked = node.snapctl("follow", REFERENCE, *words)
        assert (asked.code, asked.stdout) == (0, f"{dest}/current\n"), asked.stderr
        view = until_live(node, "v0.1.0")
        assert (view["snapshot_id"], view["state"], view["behind_seconds"]) == (old, "live", 0)
        assert view["change"]["action"] == "promote"
        assert served(dest) == "v0.1.0"
        reader = os.open(dest / "current", os.O_RDONLY)
        cloud.promote("v0.2.0")
        until_live(node, "v0.2.0")
        assert served(dest) == "v0.2.0"
        inside = os.open("version", os.O_RDONLY, dir_fd=reader)
        assert os.read(inside, 100) == b"v0.1.0", "who reads the old tree is not disturbed"
        held = {
            x["snapshot_id"]
            for x in node.snapctl("leases", "--json").document["leases"]
            if x["kind"] == "follow"
        }
        assert held == {old, new}
        assert node.snapctl("cache", "evict", old).code != 0
        cloud.roll_back("accuracy fell")
        view = until_live(node, "v0.1.0")
        assert (view["change"]["by"], view["change"]["note"]) == (
            "ann@example.org",
            "accuracy fell",
        )
        assert [x["version"] for x in view["previous"]] == ["v0.2.0"]
        [*_, last] = sorted(
            node.snapctl("jobs", "--all", "--json").document["jobs"], key=lambda x: x["created_at"]
        )
        assert (last["snapshot_id"], last["objects_fetched"]) == (old, 0)
        assert served(dest) == "v0.1.0"
        os.close(reader), os.close(inside)
