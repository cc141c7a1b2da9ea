"""Sealed objects on a kernel and a file system that have fs-verity; `run.sh` starts it in a guest.

A real daemon and the real command line; no test runner, so that the guest needs little.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snapd.disk.cache import open_cache
from snapd.disk.seal import is_sealed
from snapd.model.errors import CacheUnusable
from snapd.model.ids import digest_of
from tests.samples import Sample, sample

VERITY, PLAIN, STORE = Path("/mnt/verity"), Path("/mnt/plain"), Path("/tmp/store")
IMAGE = Path("/tmp/verity.img")
RUN = Path("/run/snapsync-check")
BIG = b"".join(number.to_bytes(4, "big") for number in range(500_000))
ONE = sample({"a": b"hello", "d/big": BIG, "d/same": b"hello", "empty": b""}, modes={"a": 0o444})
TWO = sample({"a": b"hello", "new": b"another"})
READY_SECONDS = 60.0


def snapctl(*words: str | Path, code: int = 0, uid: int = 0) -> str:
    """Run the command line; its exit code is checked, its stdout is the result."""
    as_user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    environment = {**os.environ, "HOME": "/tmp", "SNAPSYNC_SOCKET": str(RUN / "s.sock")}
    ran = subprocess.run(
        [*as_user, sys.executable, "-m", "snapctl", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, f"{words}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout or ran.stderr


@contextmanager
def daemon(cache: Path, seal: str) -> Iterator[Callable[[], str]]:
    """Run a daemon until the end of the block; gives what reads its log."""
    with daemon_process(cache, seal) as (process, log):
        deadline = time.monotonic() + READY_SECONDS
        while '"ready"' not in log():
            assert process.poll() is None, log()
            assert time.monotonic() < deadline, log()
            time.sleep(0.05)
        yield log


@contextmanager
def daemon_process(
    cache: Path, seal: str
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    RUN.mkdir(mode=0o700, exist_ok=True)
    config, written = RUN / "config.toml", RUN / "log"
    config.write_text(
        f'[daemon]\nsocket = "{RUN}/s.sock"\nlisten = ""\nstores = ["*"]\n'
        f'[cache]\ndirectory = "{cache}"\nseal = "{seal}"\nmin_free_bytes = 0\n'
        'lease_seconds = 0.1\n[log]\nformat = "json"\n'
    )
    with written.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "snapd", "--config", str(config)], stderr=output
        )
    try:
        yield process, written.read_text
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def pull(made: Sample, *more: str | Path, uid: int = 0) -> Path:
    return Path(
        snapctl("pull", "--id", made.id, "--store", f"file://{STORE}", "-q", *more, uid=uid).strip()
    )


def blobs_in(cache: Path) -> list[Path]:
    return sorted((cache / "blobs").glob("*/*"))


def is_sealed_file(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return is_sealed(fd)
    finally:
        os.close(fd)


def refusal_of(change: Callable[[], object]) -> str:
    """Name the error that the kernel refuses a change with; empty if it lets it through."""
    try:
        change()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return ""


def write_store() -> None:
    for key, data in (ONE.keys() | TWO.keys()).items():
        (STORE / key).parent.mkdir(parents=True, exist_ok=True)
        (STORE / key).write_bytes(data)


def check_a_plain_file_system_is_told_apart() -> None:
    with daemon(PLAIN / "cache", "auto") as log:
        tree = pull(ONE)
        seal = json.loads(snapctl("status", "--json"))["seal"]
        assert (seal["mode"], seal["active"]) == ("auto", False)
        assert "without fs-verity" in seal["reason"]
        assert f"no: {seal['reason']}" in snapctl("status")
        assert "objects are not sealed" in log()
        assert not is_sealed_file(tree / "a")
    with daemon_process(PLAIN / "cache", "require") as (process, log):
        assert process.wait(READY_SECONDS) != 0
        assert "requires fs-verity" in log()


def check_a_pull_seals_every_object() -> None:
    with daemon(VERITY / "cache", "require") as log:
        seal = json.loads(snapctl("status", "--json"))["seal"]
        assert seal == {"mode": "require", "active": True, "reason": ""}
        assert "yes, by fs-verity" in snapctl("status")
        assert "sealed with fs-verity" in log()
        for made in (ONE, TWO):
            tree = pull(made)
            assert all(is_sealed_file(path) for path in tree.rglob("*") if path.is_file())
            assert snapctl("attest", made.id).startswith("snapsync attest ok ")
    blobs = blobs_in(VERITY / "cache")
    assert len(blobs) == 5, blobs
    assert all(is_sealed_file(path) for path in blobs)
    assert [*(VERITY / "cache" / "staging").rglob("*")] == []


def check_not_even_root_can_change_one() -> None:
    blob = VERITY / "cache" / "trees" / ONE.id / "d" / "big"
    assert refusal_of(lambda: os.open(blob, os.O_RDWR)) == "EPERM"
    assert refusal_of(lambda: os.open(blob, os.O_WRONLY | os.O_APPEND)) == "EPERM"
    assert refusal_of(lambda: os.truncate(blob, 0)) == "EPERM"
    assert blob.read_bytes() == BIG


def check_links_modes_and_names_can_still_change() -> None:
    blob = VERITY / "cache" / "trees" / ONE.id / "d" / "big"
    outside = VERITY / "outside"
    os.link(blob, outside)
    mode = blob.stat().st_mode & 0o777
    for wanted in (0o400, mode):
        outside.chmod(wanted)
        assert blob.stat().st_mode & 0o777 == wanted
    assert outside.read_bytes() == BIG
    outside.rename(VERITY / "elsewhere")
    assert is_sealed_file(VERITY / "elsewhere")
    (VERITY / "elsewhere").unlink()
    assert blob.read_bytes() == BIG


def check_checkouts_of_sealed_objects() -> None:
    words = ("checkout", "--id", ONE.id, "--from-cache", VERITY / "cache")
    snapctl(*words, VERITY / "linked", "--mode", "hardlink")
    assert refusal_of(lambda: os.open(VERITY / "linked" / "d" / "big", os.O_RDWR)) == "EPERM"
    for name in (VERITY / "copied", PLAIN / "copied"):
        snapctl(*words, name, "--mode", "copy")
        assert not is_sealed_file(name / "d" / "big")
        (name / "d" / "big").write_bytes(b"a private copy")
        shutil.rmtree(name)
    snapctl("attest", VERITY / "linked", "--id", ONE.id, "--cache-dir", VERITY / "cache")
    shutil.rmtree(VERITY / "linked")


def check_an_ordinary_user_seals_too() -> None:
    home = VERITY / "user"
    home.mkdir()
    os.chown(home, 1000, 1000)
    config = Path("/tmp/user.toml")
    config.write_text("[cache]\nmin_free_bytes = 0\n")
    words = ("--standalone", "--config", config, "--cache-dir", home / "cache")
    tree = pull(ONE, *words, uid=1000)
    assert all(is_sealed_file(path) for path in blobs_in(home / "cache"))
    assert (tree / "d" / "big").read_bytes() == BIG
    shutil.rmtree(home)


def check_what_was_there_before_is_sealed_when_it_is_hashed_again() -> None:
    root = VERITY / "older"
    with open_cache(root, now=time.time, seal="off") as cache:
        store(cache.blobs.writer, ONE)
    assert not any(is_sealed_file(path) for path in blobs_in(root))
    with open_cache(root, now=time.time, seal="auto") as cache:
        for digest, mode in list(cache.blobs.iterate()):
            proven = cache.blobs.prove(digest, mode, lambda: None)
            assert proven is not None
            assert proven[1]
    assert all(is_sealed_file(path) for path in blobs_in(root))
    shutil.rmtree(root)


def store(writer_of: Callable[..., Any], made: Sample) -> None:
    from snapd.model.plan import refs

    for ref in refs(made.manifest, made.manifest.distinct_objects()):
        writer = writer_of(ref)
        writer.start()
        writer.write(made.objects[ref.digest])
        writer.finish()


def check_a_rotten_bit_is_an_error_and_never_data() -> None:
    blob = VERITY / "cache" / "blobs" / digest_of(BIG)[:2] / f"{digest_of(BIG)}.644"
    os.sync()
    listed = subprocess.run(
        ["filefrag", "-b4096", "-v", blob], capture_output=True, text=True, check=True
    ).stdout
    first = next(line for line in listed.splitlines() if line.lstrip().startswith("0:"))
    block = int(first.split(":")[2].split("..")[0])
    with IMAGE.open("r+b") as image:
        image.seek(block * 4096 + 100)
        byte = image.read(1)
        image.seek(block * 4096 + 100)
        image.write(bytes([byte[0] ^ 1]))
        image.flush()
        os.fsync(image.fileno())
    for loop in Path("/dev").glob("loop[0-9]*"):
        with suppress(OSError), loop.open("rb") as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    assert refusal_of(blob.read_bytes) == "EIO"
    tree = VERITY / "cache" / "trees" / ONE.id
    assert refusal_of((tree / "d" / "big").read_bytes) == "EIO"
    assert (tree / "a").read_bytes() == b"hello"
    ran = snapctl("attest", ONE.id, "--cache-dir", VERITY / "cache", "--json", code=1)
    assert "big" in ran, ran


def check_it_is_put_away_and_fetched_again() -> None:
    with open_cache(VERITY / "cache", now=time.time, seal="require") as cache:
        assert cache.trust.prove(digest_of(BIG), 0o644) is None
        assert not cache.blobs.has(digest_of(BIG), 0o644)
    with daemon(VERITY / "cache", "require"):
        tree = pull(ONE)
        assert (tree / "d" / "big").read_bytes() == BIG
        assert is_sealed_file(tree / "d" / "big")
        assert snapctl("attest", ONE.id).startswith("snapsync attest ok ")


def check_sealed_objects_are_evicted() -> None:
    with daemon(VERITY / "cache", "require"):
        for made in (ONE, TWO):
            snapctl("cache", "evict", made.id, "--given-out-too")
    assert blobs_in(VERITY / "cache") == []
    assert [*(VERITY / "cache" / "receipts").iterdir()] == []


def check_require_refuses_another_file_system_in_this_process() -> None:
    with suppress(CacheUnusable), open_cache(Path("/tmp/cache"), now=time.time, seal="require"):
        raise AssertionError("a tmpfs was taken for sealable")


CHECKS: Sequence[Callable[[], None]] = (
    check_a_plain_file_system_is_told_apart,
    check_require_refuses_another_file_system_in_this_process,
    check_a_pull_seals_every_object,
    check_not_even_root_can_change_one,
    check_links_modes_and_names_can_still_change,
    check_checkouts_of_sealed_objects,
    check_an_ordinary_user_seals_too,
    check_what_was_there_before_is_sealed_when_it_is_hashed_again,
    check_a_rotten_bit_is_an_error_and_never_data,
    check_it_is_put_away_and_fetched_again,
    check_sealed_objects_are_evicted,
)


def main() -> None:
    """Run all checks in order; each builds on the ones before."""
    write_store()
    for check in CHECKS:
        began = time.monotonic()
        check()
        name = check.__name__.removeprefix("check_").replace("_", " ")
        print(f"ok    {name} ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
