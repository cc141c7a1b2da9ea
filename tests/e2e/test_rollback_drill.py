"""The rollback drill: three nodes follow production, a bad promotion, one command takes it back."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from demo.drill import await_live, timed
from tests.e2e.following import REFERENCE, Models, follow_table, follows, served
from tests.e2e.installed import Host

NODES = 3


def test_a_rollback_reaches_every_node(
    cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    models = Models(cloud_host, s3_store(), tmp_path)
    good, bad = models.add("v0.1.0"), models.add("v0.2.0")
    models.promote("v0.1.0")
    dests = [tmp_path / f"node-{number}-srv" / "iris" for number in range(NODES)]
    with ExitStack() as stack:
        running = []
        for number, dest in enumerate(dests):
            dest.parent.mkdir()
            node = models.node(f"node-{number}", follow_table(dest))
            running.append(stack.enter_context(node))
        await_live(dests, good)
        models.promote("v0.2.0")
        await_live(dests, bad)
        result = timed(dests, good, lambda: models.roll_back("accuracy fell"))
        assert len(result.switched_seconds) == NODES
        assert [served(dest) for dest in dests] == ["v0.1.0"] * NODES
        for host, daemon in running:
            ran = host.snapctl("follow", "status", "--wait-for", "v0.1.0", "--timeout", "60s")
            assert ran.code == 0, ran.stderr
            [view] = follows(host)
            assert view["reference"] == REFERENCE
            assert (view["change"]["action"], view["change"]["by"], view["change"]["note"]) == (
                "rollback",
                "ann@example.org",
                "accuracy fell",
            )
            with urllib.request.urlopen(f"http://{daemon.status['listen']}/metrics") as answer:
                metrics = answer.read().decode()
            label = f'follow="{view["follow_id"]}",ref="{REFERENCE}"'
            assert f'snapd_follow_info{{{label},version="v0.1.0"}} 1.0' in metrics
            assert f"snapd_follow_switches_total{{{label}}} 3.0" in metrics
            assert f"snapd_follow_behind_seconds{{{label}}} 0.0" in metrics
            jobs = host.snapctl("jobs", "--all", "--json").document["jobs"]
            [last] = [job for job in jobs if job["snapshot_id"] == good][:1]
            assert last["objects_fetched"] == 0, "a rollback downloads nothing"
    last, *_ = models.do("model", "history", "iris_clf")["events"]
    assert (last["action"], last["by"], last["note"]) == (
        "rollback",
        "ann@example.org",
        "accuracy fell",
    )
