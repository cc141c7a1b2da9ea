"""Daemon and workloads as pods of a real cluster, from chart and examples; run by cluster.sh."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rendering import KUBERNETES, Resource, containers_of, pod_specs, resources
from tests.deploy.rendering import templated as rendered_chart
from tests.e2e.installed import Host
from tests.servers.seaweed import Seaweed

WORK = Path(os.environ.get("WORK", "/var/tmp/snapsync-cluster"))
IMAGE = "localhost/snapsync:test"
BRIDGE = "10.88.9.1"
FILES = {"a.bin": os.urandom(2_000_000), "d/b": b"hello"}
ENDED = ("Succeeded", "Failed")


def kubectl(*words: str, given: str | None = None, fine: bool = True) -> str:
    done = subprocess.run(
        [str(WORK / "bin/kubectl"), *words],
        input=given, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or not fine, done.stderr
    return done.stdout if fine else done.stdout + done.stderr


def apply(*found: Resource) -> None:
    # The server is older than the schemas that the manifests are validated with elsewhere.
    kubectl("apply", "--validate=false", "-f", "-", given=yaml.safe_dump_all(found))


def until(what: str, ask: Any, seconds: float = 120.0) -> Any:
    """Ask until the answer is true, and give it."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            described = kubectl("describe", "pods", "--all-namespaces", fine=False)
            raise AssertionError(f"{what} did not happen:\n{described[-8000:]}")
        time.sleep(0.3)
    return answer


def pods(selector: str, namespace: str = "default") -> list[Resource]:
    listed = kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json")
    found: list[Resource] = json.loads(listed)["items"]
    return found


def ended_pod(selector: str) -> Resource:
    """Wait until a pod has ended, and give it."""

    def ask() -> Resource | None:
        return next((pod for pod in pods(selector) if pod["status"]["phase"] in ENDED), None)

    pod: Resource = until(f"the end of {selector}", ask)
    return pod


@contextmanager
def reachable_from_pods(endpoint_url: str) -> Iterator[str]:
    """Pass connections to the bridge's address on to a server that listens on 127.0.0.1 only."""
    import socket

    port = int(endpoint_url.rpartition(":")[2])

    class Passing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as there:
                back = threading.Thread(target=pump, args=(there, self.request))
                back.start()
                pump(self.request, there)
                back.join()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    # The bridge comes with the first pod, so this listens on every address.
    with Server(("0.0.0.0", 0), Passing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{BRIDGE}:{server.server_address[1]}"
        server.shutdown()


@dataclass
class Cluster:
    """The node's directories, a store with one snapshot, and how the daemon is installed."""

    store: str
    snapshot_id: str
    endpoint_url: str
    seaweed: Seaweed

    def install(self, **values: Any) -> None:
        """Apply the chart and wait until its daemon is ready."""
        own = {
            "image": {"repository": "localhost/snapsync", "tag": "test", "pullPolicy": "Never"},
            "config": {
                "daemon": {"stores": [self.store]},
                "cache": {"min_free_bytes": "1M"},
                "store": [{"uri": self.store, "endpoint_url": self.endpoint_url}],
            },
            "paths": {
                "state": f"{WORK}/node/state",
                "socketDirectory": f"{WORK}/node/run",
                "kubelet": f"{WORK}/kubelet",
            },
            "env": [
                {"name": name, "value": value}
                for name, value in self.seaweed.environment().items()
                if name != "AWS_ENDPOINT_URL_S3"
            ],
            "resources": {
                "requests": {"cpu": "50m", "memory": "64Mi"},
                "limits": {"memory": "1Gi"},
            },
        }
        path = WORK / "values.yaml"
        path.write_text(yaml.safe_dump(own | values))
        namespace = resources((KUBERNETES / "base" / "namespace.yaml").read_text())
        apply(*namespace, *resources(rendered_chart("--values", path)))
        kubectl("-n", "snapsync", "rollout", "status", "daemonset/snapsync", "--timeout=180s")

    def daemon(self, *words: str) -> str:
        """Run something in the daemon's container."""
        return kubectl("-n", "snapsync", "exec", "daemonset/snapsync", "-c", "snapd", "--", *words)

    def example(self, name: str, **changes: str) -> list[Resource]:
        """Read an example, made to fit this cluster: image, snapshot, places on the node."""
        text = (KUBERNETES / "examples" / f"{name}.yaml").read_text()
        for old, new in {
            "0" * 64: changes.get("snapshot_id", self.snapshot_id),
            "s3://datasets/imagenet": self.store,
            "snapsync:0.1.0": IMAGE,
            "python:3.11-slim-bookworm": IMAGE,
            "path: /run/snapsync": f"path: {WORK}/node/run",
            "path: /var/lib/snapsync": f"path: {WORK}/node/state",
        }.items():
            text = text.replace(old, new)
        found = resources(text)
        for _, spec in pod_specs(found):
            for container in containers_of(spec):
                container["resources"] = {}
        return found


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed, seaweed_bucket: str
) -> Iterator[Cluster]:
    store = f"s3://{seaweed_bucket}/cluster/{time.monotonic_ns()}"
    here = tmp_path_factory.mktemp("cluster")
    for name, data in FILES.items():
        (here / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "source" / name).write_bytes(data)
    pushed = Host(here / "host", seaweed.environment()).snapctl(
        "push", here / "source", "--store", store
    )
    assert pushed.code == 0, pushed.stderr
    with reachable_from_pods(seaweed.endpoint_url) as endpoint_url:
        yield Cluster(store, pushed.stdout.strip(), endpoint_url, seaweed)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    kubectl(
        "delete", "jobs,pods,configmaps", "--all", "--wait=true", "--grace-period=1", fine=False
    )


@pytest.mark.timeout(300)
def test_a_job_may_come_before_the_daemon(cluster: Cluster) -> None:
    apply(*cluster.example("shared-tree"))
    cluster.install()
    pod = ended_pod("job-name=train")
    name = pod["metadata"]["name"]
    assert pod["status"]["phase"] == "Succeeded", kubectl("describe", "pod", name)
    assert kubectl("logs", name, "-c", "train").split() == ["a.bin", "d"]
    log = kubectl("logs", name, "-c", "data")
    assert "done in" in log, "a plain line of progress"
    assert cluster.snapshot_id in log


@pytest.mark.timeout(300)
def test_the_daemon_runs_without_privileges_and_asks_for_its_token(cluster: Cluster) -> None:
    token = {"token": "c2VjcmV0LXRva2VuLXNlY3JldC10b2tlbi1zZWNyZXQ="}
    metadata = {"name": "snapsync-metrics", "namespace": "snapsync"}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": token})
    cluster.install(podAnnotations={"restarted": "for-the-token"})
    status = dict(
        line.split(":\t", 1) for line in cluster.daemon("cat", "/proc/1/status").splitlines()
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    (pod,) = pods("app.kubernetes.io/name=snapsync", "snapsync")
    url = f"http://{pod['status']['podIP']}:9477"
    assert urllib.request.urlopen(f"{url}/readyz", timeout=10).status == 200
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/metrics", timeout=10)
    bearer = {"Authorization": "Bearer secret-token-secret-token-secret"}
    asked = urllib.request.Request(f"{url}/metrics", headers=bearer)
    assert b"snapd_build_info" in urllib.request.urlopen(asked, timeout=10).read()


@pytest.mark.timeout(300)
def test_two_jobs_and_a_new_daemon_share_what_is_there(cluster: Cluster) -> None:
    cluster.install(podAnnotations={"restarted": "once-more"})
    apply(*cluster.example("two-jobs"))
    for job in ("first", "second"):
        pod = ended_pod(f"job-name={job}")
        assert pod["status"]["phase"] == "Succeeded"
        log = kubectl("logs", pod["metadata"]["name"], "-c", "data")
        assert "fetched 0 B (0 objects)" in log, "the cache outlived the pod"
    receipt = json.loads(cluster.daemon("snapctl", "receipt", cluster.snapshot_id, "--json"))
    assert receipt["host"] == "node1"


@pytest.mark.timeout(300)
def test_a_checkout_of_one_s_own_and_trees_seen_at_another_path(cluster: Cluster) -> None:
    cluster.install()
    (pod,) = cluster.example("own-checkout")
    command = f'test "$(snapctl id /mine/data)" = {cluster.snapshot_id} && touch /mine/data/mine'
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", command]
    pod["metadata"]["labels"] = {"test": "own"}
    apply(pod)
    ended = ended_pod("test=own")
    assert ended["status"]["phase"] == "Succeeded", kubectl("logs", "own-checkout", "-c", "data")


@pytest.mark.timeout(300)
def test_a_failure_says_in_the_pod_s_status_what_to_do(cluster: Cluster) -> None:
    cluster.install()
    (pod,) = cluster.example("own-checkout", snapshot_id="b" * 64)
    pod["metadata"]["labels"] = {"test": "wrong"}
    apply(pod)
    ended = ended_pod("test=wrong")
    (data,) = ended["status"]["initContainerStatuses"]
    terminated = data["state"]["terminated"]
    assert terminated["exitCode"] == 10
    assert "no_such_snapshot" in terminated["message"]
    assert "next: Compare the ID" in terminated["message"]


@pytest.mark.timeout(300)
def test_leases_of_pods_and_processes_where_the_daemon_may_see_them(cluster: Cluster) -> None:
    cluster.install(leases={"pods": True, "processes": True})
    (pod,) = cluster.example("own-checkout")
    pod["metadata"] |= {"name": "holder", "labels": {"test": "holder"}}
    data, main = pod["spec"]["initContainers"][0], pod["spec"]["containers"][0]
    data["args"] = ["snapctl", "pull"]
    data["env"].append(
        {
            "name": "SNAPSYNC_POD_UID",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}},
        }
    )
    main |= {"env": data["env"], "volumeMounts": data["volumeMounts"]}
    main["command"] = ["snapctl", "hold", "--reason", "a test"]
    apply(pod)

    def kinds() -> set[str]:
        listed = json.loads(cluster.daemon("snapctl", "leases", "--json"))["leases"]
        return {lease["kind"] for lease in listed}

    until("both leases", lambda: {"pod", "process"} <= kinds())
    kubectl("delete", "pod", "holder", "--wait=true", "--grace-period=5")
    until("their end", lambda: not {"pod", "process"} & kinds())
