"""Each way to ask for something that can't be: its exit code, its words, and nothing half-done."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from tests.e2e.installed import Host, Ran, files_below, write_files
from tests.samples import Sample, sample
from tests.servers.faultproxy import Fault, FaultProxy, Kind
from tests.servers.ports import reserved_port

NOWHERE = "0" * 64


@pytest.fixture
def held(tmp_path: Path) -> Sample:
    """A snapshot that lies in `file://<tmp_path>/store`."""
    made = sample({"good": b"good", "dir/other": b"other", "twin": b"good"})
    write_files(tmp_path / "store", made.keys())
    return made


def pull(host: Host, *arguments: str | Path) -> Ran:
    return host.snapctl("pull", *arguments, "--standalone", "--json")


def assert_refused(ran: Ran, exit_code: int, code: str, *words: str) -> None:
    assert ran.code == exit_code, ran.stderr
    assert ran.error["exit_code"] == exit_code
    assert ran.error["code"] == code
    assert ran.error["hint"]
    for word in words:
        assert word in ran.error["message"]
    assert "Traceback" not in ran.stderr


def trees(host: Host) -> list[str]:
    return os.listdir(host.cache / "trees") if host.cache.exists() else []


@pytest.mark.parametrize("snapshot_id", ["", "abc", "g" * 64, "0" * 63, "../../etc/passwd"])
def test_an_id_of_the_wrong_syntax(host: Host, snapshot_id: str) -> None:
    ran = pull(host, "--id", snapshot_id, "--store", "file:///nowhere")
    assert_refused(ran, 2, "invalid_id", repr(snapshot_id))
    assert not host.cache.exists()


@pytest.mark.parametrize("store", ["ftp://host/path", "nonsense", "s3://", "s3:///key", "file:/x"])
def test_a_store_that_nobody_speaks(host: Host, store: str) -> None:
    ran = pull(host, "--id", NOWHERE, "--store", store)
    assert_refused(ran, 2, "invalid_store_uri", store)


def test_no_id_and_no_store_at_all(host: Host) -> None:
    assert host.snapctl("pull", "--store", "file:///x").code == 2
    assert host.snapctl("pull", "--id", NOWHERE).code == 2
    assert host.snapctl("nonsense").code == 2


def test_a_bucket_that_does_not_exist(cloud_host: Host) -> None:
    ran = pull(cloud_host, "--id", NOWHERE, "--store", "s3://no-such-bucket/prefix")
    assert_refused(ran, 13, "store_missing", "no-such-bucket")


def test_a_directory_that_does_not_exist(host: Host) -> None:
    ran = pull(host, "--id", NOWHERE, "--store", "file:///no/such/directory")
    assert_refused(ran, 13, "store_missing", "/no/such/directory")


def test_no_credentials(cloud_host: Host, seaweed_bucket: str) -> None:
    del cloud_host.variables["AWS_ACCESS_KEY_ID"], cloud_host.variables["AWS_SECRET_ACCESS_KEY"]
    ran = pull(cloud_host, "--id", NOWHERE, "--store", f"s3://{seaweed_bucket}")
    assert_refused(ran, 15, "credentials_missing")


def test_credentials_that_are_refused(cloud_host: Host, seaweed_bucket: str) -> None:
    cloud_host.variables["AWS_SECRET_ACCESS_KEY"] = "wrong"
    ran = pull(cloud_host, "--id", NOWHERE, "--store", f"s3://{seaweed_bucket}")
    assert_refused(ran, 15, "access_denied", "SignatureDoesNotMatch")


def test_nobody_listens_at_the_endpoint(cloud_host: Host) -> None:
    with reserved_port() as port:
        cloud_host.variables["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{port}"
        ran = pull(cloud_host, "--id", NOWHERE, "--store", "s3://any", "--timeout", "2s")
    assert ran.code in (13, 16), ran.stderr
    assert "Traceback" not in ran.stderr


def test_no_such_snapshot(host: Host, held: Sample, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    assert_refused(
        pull(host, "--id", NOWHERE, "--store", store), 10, "no_such_snapshot", NOWHERE, store
    )


def test_no_such_snapshot_on_s3(cloud_host: Host, s3_store: Callable[[], str]) -> None:
    store = s3_store()
    ran = pull(cloud_host, "--id", NOWHERE, "--store", store)
    assert_refused(ran, 10, "no_such_snapshot", NOWHERE, store)


def test_a_missing_object_is_named_with_a_path(host: Host, held: Sample, tmp_path: Path) -> None:
    digest = held.manifest.find("./dir/other").checksum  # type: ignore[union-attr]
    (tmp_path / "store" / object_key(digest)).unlink()
    ran = pull(host, "--id", held.id, "--store", f"file://{tmp_path}/store", tmp_path / "dest")
    assert_refused(ran, 12, "object_missing", digest, "./dir/other")
    assert not (tmp_path / "dest").exists()
    assert trees(host) == []


def test_wrong_bytes_in_the_store(host: Host, held: Sample, tmp_path: Path) -> None:
    digest = held.manifest.find("./dir/other").checksum  # type: ignore[union-attr]
    (tmp_path / "store" / object_key(digest)).write_bytes(b"wrong")
    ran = pull(host, "--id", held.id, "--store", f"file://{tmp_path}/store", tmp_path / "dest")
    assert_refused(ran, 12, "digest_mismatch", digest, "./dir/other")
    assert not (tmp_path / "dest").exists()
    assert trees(host) == []
    assert not list((host.cache / "blobs").rglob(f"{digest}*"))
    assert any(host.cache.joinpath("quarantine").iterdir())


def test_a_hostile_manifest_is_refused_whole(host: Host, tmp_path: Path) -> None:
    text = b"D 755 " + b"0" * 64 + b" 0 ./\nF 644 " + b"0" * 64 + b" 0 ./../escape\n"
    snapshot_id = SnapshotId(digest_of(text))
    write_files(tmp_path / "store", {manifest_key(snapshot_id): text})
    ran = pull(host, "--id", snapshot_id, "--store", f"file://{tmp_path}/store", tmp_path / "d")
    assert_refused(ran, 17, "manifest_refused", "line 2", "./../escape")
    assert not (tmp_path / "d").exists()


def test_a_destination_that_may_not_be_written(host: Host, held: Sample, tmp_path: Path) -> None:
    ran = pull(host, "--id", held.id, "--store", f"file://{tmp_path}/store", "/proc/nowhere")
    assert ran.code in (1, 15), ran.stderr
    assert "/proc" in ran.error["message"]


def test_a_dangerous_destination(host: Host, held: Sample, tmp_path: Path) -> None:
    arguments = ("--id", held.id, "--store", f"file://{tmp_path}/store")
    for dest in ("/", host.root / "home", host.cache, host.cache / "trees", tmp_path / "store"):
        ran = pull(host, *arguments, dest, "--delete")
        assert_refused(ran, 2, "dangerous_destination", str(dest))
    assert (tmp_path / "store").exists()


def test_no_socket_and_nobody_behind_it(host: Host) -> None:
    absent = host.snapctl("status", "--json")
    assert_refused(absent, 14, "daemon_not_running", str(host.socket))
    host.environment()
    host.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(host.socket))
    refused = host.snapctl("status", "--json")
    assert_refused(refused, 14, "daemon_not_running", str(host.socket))


def test_a_store_that_the_daemon_may_not_read(host: Host, held: Sample, tmp_path: Path) -> None:
    with host.daemon("--store", "s3://another"):
        ran = host.snapctl("pull", "--id", held.id, "--store", f"file://{tmp_path}/store", "--json")
    assert_refused(ran, 15, "store_not_allowed", f"{tmp_path}/store")


FULL_DISK = """
size=$1 small=$2; shift 2
mkdir -p "$small" && mount -t tmpfs -o "size=$size" tmpfs "$small" || exit 99
"$@"; code=$?
find "$small" -type f > "$small.after"
exit $code
"""


def on_a_small_disk(host: Host, small: Path, size: str, *command: str) -> Ran:
    """Run `snapctl` where `small` is a file system of that size, seen by this process only."""
    as_whom = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = ("unshare", *as_whom, "--mount", "sh", "-c", FULL_DISK, "sh", size, str(small))
    return host.command(*prefix, str(host.program("snapctl")), *command)


@pytest.mark.parametrize(
    "files",
    [
        {"big": os.urandom(6_000_000)},
        # Little to fetch, but each object takes a block.
        {f"f{number}": f"{number}".encode() * 20 for number in range(1500)},
    ],
    ids=["one-large", "many-small"],
)
def test_a_snapshot_larger_than_the_disk_is_refused_before_fetching(
    host: Host, tmp_path: Path, files: dict[str, bytes]
) -> None:
    made = sample(files)
    write_files(tmp_path / "store", made.keys())
    small = tmp_path / "small"
    write_files(tmp_path, {"snapsync.toml": b"[cache]\nmin_free_bytes = 0\n"})
    arguments = ("--config", str(tmp_path / "snapsync.toml"), "--cache-dir", str(small / "cache"))
    ran = on_a_small_disk(
        host,
        small,
        "4m",
        *("pull", "--id", made.id, "--store", f"file://{tmp_path}/store"),
        *("--standalone", "--json", *arguments),
    )
    assert_refused(ran, 11, "cache_full", "MiB", str(small))
    left = (tmp_path / "small.after").read_text(encoding="utf-8")
    assert "/blobs/" not in left
    assert "/trees/" not in left


def test_a_disk_that_fills_during_checkout(host: Host, tmp_path: Path) -> None:
    made = sample({f"f{number}": os.urandom(500_000) for number in range(12)})
    write_files(tmp_path / "store", made.keys())
    assert pull(host, "--id", made.id, "--store", f"file://{tmp_path}/store").code == 0
    small = tmp_path / "small"
    dest = str(small / "dest")
    ran = on_a_small_disk(host, small, "4m", "checkout", "--id", made.id, dest, "--json")
    assert_refused(ran, 11, "no_space", dest)
    left = (tmp_path / "small.after").read_text(encoding="utf-8").splitlines()
    assert not [name for name in left if ".snapsync-" in name]
    assert host.snapctl("checkout", "--id", made.id, tmp_path / "roomy").code == 0
    assert len(files_below(tmp_path / "roomy")) == 12


def test_two_checkouts_to_one_destination(host: Host, tmp_path: Path) -> None:
    made = sample({f"d{n % 50}/f{n}": os.urandom(2_000) for n in range(3000)})
    write_files(tmp_path / "store", made.keys())
    assert pull(host, "--id", made.id, "--store", f"file://{tmp_path}/store").code == 0
    dest = tmp_path / "dest"
    dest.mkdir()
    arguments = ("pull", "--id", made.id, "--store", f"file://{tmp_path}/store", "--standalone")
    first = host.start("snapctl", *arguments, dest, "--mode", "copy")
    wait_until_locked(dest)
    first.send_signal(signal.SIGSTOP)
    second = host.snapctl(*arguments, dest, "--json")
    first.send_signal(signal.SIGCONT)
    assert_refused(second, 1, "destination_busy", str(dest))
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert host.snapctl("id", dest).stdout.strip() == made.id


def wait_until_locked(directory: Path) -> None:
    """Wait for somebody's lock on a directory, as the kernel lists it; trying would take it."""
    wanted = f":{directory.stat().st_ino} "
    deadline = time.monotonic() + 30
    while wanted not in Path("/proc/locks").read_text(encoding="ascii"):
        assert time.monotonic() < deadline, "nobody locked the destination"
        time.sleep(0.001)


def test_a_store_that_fails_in_passing_is_asked_again(
    cloud_host: Host, s3_store: Callable[[], str], fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    source = write_files(tmp_path / "source", {f"f{n}": os.urandom(3000) for n in range(30)})
    store = s3_store()
    snapshot_id = cloud_host.snapctl("push", source, "--store", store).stdout.strip()
    cloud_host.variables["AWS_ENDPOINT_URL_S3"] = fault_proxy.url
    kinds: tuple[Kind, ...] = ("reset", "cut", "shorten", "flip", "answer")
    fault_proxy.plan(*(Fault(kind, path="objects", times=2) for kind in kinds))
    ran = pull(cloud_host, "--id", snapshot_id, "--store", store, tmp_path / "dest")
    assert ran.code == 0, ran.stderr
    assert files_below(tmp_path / "dest") == files_below(source)
    assert sum(bool(seen.fault) for seen in fault_proxy.seen) == 10
