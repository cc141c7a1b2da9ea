"""The built image at work: a daemon's container and jobs' containers; run by image.sh, as root.

Everything here is real: podman, the S3 server, the image. Jobs have another user than the daemon,
socket and trees by read-only mounts, and a root file system that they can't write to.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_image import pinned
from tests.e2e.installed import Host, Ran
from tests.servers.seaweed import Seaweed

IMAGE = os.environ.get("IMAGE", "localhost/snapsync:test")
DAEMON, JOB = "10001:10001", "1000:1000"
FILES = {"train/a.bin": os.urandom(3_000_000), "train/b": b"hello", "meta.json": b"{}"}
CONFINED = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all"]
CONFINED += ["--security-opt=no-new-privileges", "--network=host", "--rm", "--replace"]


def podman(*words: str, seconds: float = 120.0) -> Ran:
    done = subprocess.run(
        ["podman", *words], capture_output=True, text=True, timeout=seconds, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def inside(*words: str, options: Sequence[str] = ()) -> Ran:
    """Run something in a container of the image to its end."""
    return podman("run", *CONFINED, "--name=snapsync-job", *options, IMAGE, *words)


@dataclass
class Node:
    """A node of a cluster: its two directories, a store, and containers on them."""

    root: Path
    store: str
    environment: dict[str, str]
    snapshot_id: str

    @property
    def state(self) -> Path:
        return self.root / "state"

    def job_words(self, *words: str, **variables: str) -> list[str]:
        given = {
            "SNAPSYNC_TREES": "/snapshots",
            "SNAPSYNC_STORE": self.store,
            "SNAPSYNC_ID": self.snapshot_id,
            "SNAPSYNC_TERMINATION_LOG": "/dev/termination-log",
            **variables,
        }
        log = self.root / "termination-log"
        log.write_text("")
        log.chmod(0o666)
        return [
            "run",
            *CONFINED,
            "--name=snapsync-job",
            f"--user={JOB}",
            "--group-add=10001",
            f"--volume={self.root}/run:/run/snapsync:ro",
            f"--volume={self.state}/trees:/snapshots:ro",
            f"--volume={self.root}/work:/mine",
            f"--volume={log}:/dev/termination-log",
            *(f"--env={name}={value}" for name, value in given.items()),
            IMAGE,
            *words,
        ]

    def job(self, *words: str, **variables: str) -> Ran:
        """Run a job's container, which is not the daemon's user, to its end."""
        return podman(*self.job_words(*words, **variables))

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the daemon's container for the length of the block; SIGTERM must end it with 0."""
        words = [
            *("run", *CONFINED, "--detach", "--name=snapsync-daemon", f"--user={DAEMON}"),
            f"--volume={self.root}/run:/run/snapsync",
            f"--volume={self.state}:/var/lib/snapsync",
            f"--volume={self.root}/config.toml:/etc/snapsync/config.toml:ro",
            *(f"--env={name}={value}" for name, value in self.environment.items()),
        ]
        words = [word for word in words if word != "--rm"]
        started = podman(*words, IMAGE, "snapd", "--config", "/etc/snapsync/config.toml")
        assert started.code == 0, started.stderr
        try:
            yield
            stopped = podman("stop", "--time=30", "snapsync-daemon")
            assert stopped.code == 0, stopped.stderr
            ended = podman("inspect", "--format={{.State.ExitCode}}", "snapsync-daemon")
            assert ended.stdout.strip() == "0", podman("logs", "snapsync-daemon").stderr
        finally:
            podman("rm", "--force", "snapsync-daemon")


@contextmanager
def with_reflinks(image: Path, place: Path) -> Iterator[Path]:
    """Mount a small XFS for the length of the block."""
    with image.open("wb") as target:
        target.truncate(400 << 20)
    place.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def node(tmp_path: Path, seaweed: Seaweed, seaweed_bucket: str) -> Iterator[Node]:
    yield from _node(tmp_path, tmp_path / "node", seaweed, seaweed_bucket)


@pytest.fixture
def node_with_reflinks(tmp_path: Path, seaweed: Seaweed, seaweed_bucket: str) -> Iterator[Node]:
    with with_reflinks(tmp_path / "xfs.img", tmp_path / "xfs") as place:
        yield from _node(tmp_path, place / "node", seaweed, seaweed_bucket)


def _node(tmp_path: Path, root: Path, seaweed: Seaweed, seaweed_bucket: str) -> Iterator[Node]:
    store = f"s3://{seaweed_bucket}/image/{time.monotonic_ns()}"
    source = tmp_path / "source"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    pushed = Host(tmp_path / "host", seaweed.environment()).snapctl(
        "push", source, "--store", store
    )
    assert pushed.code == 0, pushed.stderr
    for name, owner in (("run", 10001), ("state", 10001), ("work", 1000)):
        (root / name).mkdir(parents=True)
        os.chown(root / name, owner, owner)
    # A node's directory of trees exists once its daemon has run; here the job may come first.
    (root / "state" / "trees").mkdir()
    os.chown(root / "state" / "trees", 10001, 10001)
    for part in [root, *root.parents]:
        if part.stat().st_uid == os.getuid() and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o055)
    (root / "config.toml").write_text(
        f'[daemon]\nstores = ["{store}"]\nlisten = "127.0.0.1:0"\n'
        'socket = "/run/snapsync/snapd.sock"\n'
        '[access]\nadminister = ["owner"]\n'
        '[cache]\ndirectory = "/var/lib/snapsync"\nmin_free_bytes = "1M"\n'
    )
    yield Node(root, store, seaweed.environment(), pushed.stdout.strip())
    podman("rm", "--force", "snapsync-job")


def test_the_image_has_what_it_says_and_little_else() -> None:
    (image,) = json.loads(podman("image", "inspect", IMAGE).stdout)
    assert image["Config"]["User"] == DAEMON
    assert image["Config"]["Cmd"] == ["snapd"]
    assert inside("snapctl", "version").stdout.startswith("snapctl")
    assert "No module named pip" in inside("python", "-m", "pip").stderr
    bill: dict[str, Any] = json.loads(inside("cat", "/usr/share/doc/snapsync/sbom.cdx.json").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    listed = {
        each["name"].lower().replace("_", "-"): each["version"] for each in bill["components"]
    }
    locked = pinned("requirements.lock")
    # Some are only for other platforms or Pythons; what is there is what was locked.
    assert listed.keys() - {"snapsync"} <= locked.keys()
    assert {"pycurl", "blake3", "aiohttp", "anyio"} <= listed.keys()
    assert all(locked[name] == version for name, version in listed.items() if name in locked)


def test_nothing_in_the_image_can_be_written_by_its_user() -> None:
    found = podman(
        *("run", "--rm", "--network=none", IMAGE, "find", "/", "-xdev", "-writable"),
        *("-not", "-type", "l", "-not", "-path", "/proc/*", "-not", "-path", "/dev/*"),
    )
    # Files of the runtime and what every system has.
    allowed = ("/tmp", "/var/tmp", "/run/lock", "/dev", "/proc", "/sys", "/run/.containerenv")
    assert "/tmp" in found.stdout.split(), found.stderr
    left = [path for path in found.stdout.split() if not path.startswith(allowed)]
    assert left == []


def test_a_job_that_comes_first_waits_and_pulls_what_is_verified(node: Node) -> None:
    words = node.job_words("snapctl", "pull", "--wait-for-daemon", "1m", "--timeout", "2m")
    waiting = subprocess.Popen(
        ["podman", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr is not None
    assert "no socket at" in waiting.stderr.readline()
    with node.daemon():
        output, errors = waiting.communicate(timeout=120)
        assert waiting.returncode == 0, errors
        tree = f"/snapshots/{node.snapshot_id}"
        assert output == f"{tree}\n"
        # Whoever reads it can prove it, by hashing every byte once more.
        verified = node.job("snapctl", "verify", "--id", node.snapshot_id, tree)
        assert verified.code == 0, verified.stderr
        read_only = node.job("touch", f"{tree}/mine")
        assert "Read-only file system" in read_only.stderr


def test_a_checkout_of_one_s_own_has_the_same_id(node: Node) -> None:
    with node.daemon():
        laid_out = node.job("snapctl", "pull", "/mine/data", "--wait-for-daemon", "1m", "--json")
        assert laid_out.code == 0, laid_out.stderr
        assert laid_out.document["checkout"]["mode"] in ("reflink", "copy")
        named = node.job("snapctl", "id", "/mine/data")
        assert named.stdout.strip() == node.snapshot_id
        assert node.job("touch", "/mine/data/mine").code == 0


def test_of_the_modes_only_hard_links_do_not_cross_the_mounts(node_with_reflinks: Node) -> None:
    node = node_with_reflinks
    pull = ("snapctl", "pull", "--wait-for-daemon", "1m", "--json")
    with node.daemon():
        for mode, made in (("auto", "reflink"), ("reflink", "reflink"), ("copy", "copy")):
            laid_out = node.job(*pull, "--mode", mode, f"/mine/{mode}")
            assert laid_out.code == 0, laid_out.stderr
            assert laid_out.document["checkout"]["mode"] == made
        linked = node.job(*pull, "--mode", "symlink", "/mine/link")
        assert linked.code == 0, linked.stderr
        assert os.readlink(node.root / "work" / "link") == f"/snapshots/{node.snapshot_id}"
        refused = node.job(*pull, "--mode", "hardlink", "/mine/hard")
        assert refused.code == 1, refused.stderr
        assert "mount" in refused.error["message"] + refused.error["hint"]


def test_a_failure_leaves_its_exit_code_and_the_next_action(node: Node) -> None:
    with node.daemon():
        failed = node.job("snapctl", "pull", "--wait-for-daemon", "1m", SNAPSYNC_ID="b" * 64)
        assert failed.code == 10, failed.stderr
        words = (node.root / "termination-log").read_text().splitlines()
        assert "no_such_snapshot" in words[1]
        assert words[-1].startswith("next: Compare the ID")
        refused = node.job("snapctl", "pull", SNAPSYNC_STORE="s3://elsewhere")
        assert refused.code == 15, refused.stderr
    gone = node.job("snapctl", "pull")
    assert gone.code == 14, gone.stderr
    assert "daemon_not_running" in (node.root / "termination-log").read_text()


def test_a_new_daemon_goes_on_with_what_the_old_one_left(node: Node) -> None:
    with node.daemon():
        first = node.job("snapctl", "pull", "--wait-for-daemon", "1m", "--json")
        assert first.document["objects_fetched"] == len(FILES)
    with node.daemon():
        again = node.job("snapctl", "pull", "--wait-for-daemon", "1m", "--json")
        assert again.document["objects_fetched"] == 0


def test_a_job_holds_but_is_no_administrator(node: Node) -> None:
    with node.daemon():
        held = subprocess.Popen(
            ["podman", *node.job_words("snapctl", "hold", "--wait-for-daemon", "1m")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert held.stdout is not None
        assert held.stdout.readline() == f"/snapshots/{node.snapshot_id}\n"
        words = ["exec", "--user", JOB, "snapsync-job", "snapctl", "cache", "evict"]
        evicted = podman(*words, node.snapshot_id, "--given-out-too")
        assert evicted.code == 15, evicted.stderr
        assert podman("stop", "--time=20", "snapsync-job").code == 0
        _, errors = held.communicate(timeout=30)
        assert held.returncode == 0, errors
        assert "another PID namespace" in errors
