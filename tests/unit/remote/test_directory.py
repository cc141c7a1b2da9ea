"""What only a directory can get wrong: names, modes, leftovers, permissions, other processes."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.lowlevel
import pytest

from snapd.model.errors import (
    KeyMissing,
    StoreMissing,
    TimedOut,
    UsageError,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.model.settings import TransferSettings
from snapd.model.uris import StoreUri
from snapd.remote.base import Get, Put, Stored
from snapd.remote.directory import DirectoryStore
from snapd.remote.files import STAGING
from tests.contract.sinks import RecordingSink, read

MANIFEST_KEY = manifest_key(SnapshotId("ab" * 32))
PLAIN_USER = 65534


def store_at(root: Path, **settings: float) -> DirectoryStore:
    return DirectoryStore(
        StoreUri("file", "", str(root)),
        TransferSettings(**settings),  # type: ignore[arg-type]  # only float settings are given
    )


async def put(store: DirectoryStore, key: str, body: bytes) -> Stored:
    [outcome] = await store.put_batch([Put(key, lambda: body, len(body))])
    assert isinstance(outcome, Stored), outcome
    return outcome


async def keys_of(store: DirectoryStore, prefix: str) -> list[str]:
    return [info.key async for info in store.list(prefix)]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return store_at(tmp_path / "store")


@pytest.fixture
def narrow_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


# Layout


async def test_keys_are_paths_below_the_root(store: DirectoryStore, tmp_path: Path) -> None:
    body = b"content"
    digest = digest_of(body)
    await put(store, object_key(digest), body)
    await put(store, MANIFEST_KEY, b"text\n")
    at = f".objects/{digest[:3]}/{digest[3:6]}/{digest[6:9]}/{digest[9:]}"
    assert (tmp_path / "store" / at).read_bytes() == body
    assert (tmp_path / "store/.manifests/aba/bab/aba" / ("b" + "ab" * 27)).read_bytes() == b"text\n"


@pytest.mark.usefixtures("narrow_umask")
async def test_modes_depend_on_nothing_but_the_kind(store: DirectoryStore, tmp_path: Path) -> None:
    key = object_key(digest_of(b"x"))
    await put(store, key, b"x")
    await store.put(MANIFEST_KEY, b"text\n")
    root = tmp_path / "store"
    assert stat.S_IMODE((root / key).stat().st_mode) == 0o444
    assert stat.S_IMODE((root / MANIFEST_KEY).stat().st_mode) == 0o644


async def test_nothing_staged_is_left_behind(store: DirectoryStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"part"
        raise ValueError("the source broke")

    await put(store, "t/a", b"x")
    await put(store, "t/a", b"y")
    with pytest.raises(ValueError, match="broke"):
        await store.put_large("t/b", broken(), size_bytes=10)
    assert list((tmp_path / "store" / STAGING).iterdir()) == []


async def test_the_longest_names_can_be_written(store: DirectoryStore) -> None:
    key = "t/" + "n" * 255
    await put(store, key, b"x")
    assert await read(store, key) == b"x"
    [outcome] = await store.put_batch([Put("t/" + "n" * 256, lambda: b"x", 1)])
    assert isinstance(outcome, UsageError)


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", f"{STAGING}/x", "a\0b"]
)
async def test_keys_that_would_leave_the_store_are_refused(
    store: DirectoryStore, tmp_path: Path, key: str
) -> None:
    await put(store, "a", b"x")
    outcomes = [
        *await store.put_batch([Put(key, lambda: b"evil", 4)]),
        *await store.get_batch([Get(key, RecordingSink())]),
        *await store.head_batch([key]),
    ]
    assert [type(outcome) for outcome in outcomes] == [UsageError] * 3
    with pytest.raises(UsageError):
        await store.put(key, b"evil")
    assert os.listdir(tmp_path) == ["store"]


async def test_a_listing_never_leaves_the_store(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x").write_bytes(b"x")
    await put(store, "a", b"x")
    assert await keys_of(store, "../outside/") == []
    assert await keys_of(store, "/") == []


# Foreign things in a store


async def test_foreign_names_are_not_listed(store: DirectoryStore, tmp_path: Path) -> None:
    key = object_key(digest_of(b"x"))
    await put(store, key, b"x")
    await put(store, MANIFEST_KEY, b"text\n")
    root = tmp_path / "store"
    (root / f"{key}.17.0.tmp").write_bytes(b"half")
    (root / f"{MANIFEST_KEY}.17.0.tmp").write_bytes(b"half")
    (root / ".objects/README").write_bytes(b"foreign")
    (root / ".objects" / ("a" * 64)).write_bytes(b"foreign")
    (root / os.fsdecode(b"not utf-8 \xff")).write_bytes(b"foreign")
    (root / STAGING / "0123456789abcdef").write_bytes(b"half")
    assert await keys_of(store, "") == [MANIFEST_KEY, key]


async def test_a_store_without_manifests_is_empty(tmp_path: Path) -> None:
    assert await keys_of(store_at(tmp_path), ".manifests/") == []


async def test_a_pipe_or_a_directory_at_a_key_is_no_object(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    store = store_at(tmp_path)
    for key in ("pipe", "directory", "file/below"):
        with pytest.raises(KeyMissing):
            await read(store, key)
        assert await store.head_batch([key]) == [None]
    assert await keys_of(store, "") == ["file"]


async def test_a_link_is_read_through_and_a_dangling_one_is_absent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    store = store_at(tmp_path)
    assert await read(store, "link") == b"x"
    assert await store.head_batch(["loop", "dangling"]) == [None, None]
    assert await keys_of(store, "") == ["file", "link"]


async def test_leftovers_of_killed_writers_are_swept_after_a_day(tmp_path: Path) -> None:
    staging = tmp_path / STAGING
    staging.mkdir()
    old, young = staging / "old", staging / "young"
    for path in (old, young, staging / "lock"):
        path.write_bytes(b"half")
    for path in (old, staging / "lock"):
        os.utime(path, (1, 1))
    await put(store_at(tmp_path), "t/a", b"x")
    assert sorted(path.name for path in staging.iterdir()) == ["lock", "young"]


# Absence and failure


async def test_a_first_write_makes_the_root(tmp_path: Path) -> None:
    store = store_at(tmp_path / "deep/er/store")
    assert [type(outcome) for outcome in await store.head_batch(["a"])] == [StoreMissing]
    await store.put("a", b"x")
    assert (tmp_path / "deep/er/store/a").read_bytes() == b"x"


async def test_a_root_that_is_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreMissing):
        await read(store_at(tmp_path / "file"), "a")


def as_plain_user(script: str, root: Path) -> str:
    """Run a script on a store as a user without privileges and give what it printed."""
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + BECOME_PLAIN + textwrap.dedent(script), str(root)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


PRELUDE = """
import sys
import anyio
import anyio.lowlevel
from snapd.model.settings import TransferSettings
from snapd.model.uris import StoreUri
from snapd.remote.base import Get, Put
from snapd.remote.directory import DirectoryStore
from tests.contract.sinks import RecordingSink

store = DirectoryStore(StoreUri("file", "", sys.argv[1]), TransferSettings())
"""

# Everything is imported by then: the interpreter may lie where only root may look.
BECOME_PLAIN = f"""
import os
anyio.run(anyio.sleep, 0)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({PLAIN_USER})
    os.setuid({PLAIN_USER})
"""


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """Give a directory that every user may reach and write."""
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


def test_a_missing_permission_names_the_key(shared_directory: Path) -> None:
    key = "t/secret"
    (shared_directory / "t").mkdir()
    (shared_directory / key).write_bytes(b"x")
    (shared_directory / key).chmod(0)
    (shared_directory / "t").chmod(0o555)
    script = """
    async def main():
        outcomes = await store.get_batch([Get("t/secret", RecordingSink())])
        outcomes += await store.put_batch([Put("t/new", lambda: b"x", 1)])
        for outcome in outcomes:
            print(outcome.code, "|", outcome.message)

    anyio.run(main)
    """
    said = as_plain_user(script, shared_directory).splitlines()
    uri = f"file://{shared_directory}"
    assert said == [
        f"access_denied | {uri} t/secret: Permission denied",
        f"access_denied | {uri} t/new: Permission denied",
    ]


def test_a_plain_user_pushes_and_another_reads(shared_directory: Path) -> None:
    script = """
    async def main():
        [stored] = await store.put_batch([Put("t/a", lambda: b"theirs", 6)])
        await store.put("t/doc", b"one")
        print(stored.existed)

    anyio.run(main)
    """
    assert as_plain_user(script, shared_directory) == "False\n"
    assert (shared_directory / "t/a").read_bytes() == b"theirs"


# Other processes


async def test_a_writer_of_documents_waits_for_the_lock_of_another_process(
    store: DirectoryStore, tmp_path: Path
) -> None:
    await store.put("t/doc", b"one")
    with open(tmp_path / "store" / STAGING / "lock", "rb") as lock:  # noqa: ASYNC230
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:
            group.start_soon(store.put, "t/doc", b"two")
            await anyio.sleep(0.05)
            assert (await store.get("t/doc", limit_bytes=10)).data == b"one"
            fcntl.flock(lock, fcntl.LOCK_UN)
    assert (await store.get("t/doc", limit_bytes=10)).data == b"two"


async def test_a_lock_that_is_never_released_is_a_time_out(tmp_path: Path) -> None:
    store = store_at(tmp_path, stall_timeout_seconds=0.05)
    await store.put("t/doc", b"one")
    with open(tmp_path / STAGING / "lock", "rb") as lock:  # noqa: ASYNC230
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimedOut, match=r"t/doc: another writer held the lock"):
            await store.put("t/doc", b"two")
    await store.put("t/doc", b"three")


def test_changes_by_many_processes_are_never_lost(tmp_path: Path) -> None:
    script = """
    from snapd.model.errors import ConditionFailed, KeyMissing, StoreMissing
    from snapd.remote.base import IF_ABSENT, Condition

    async def add_one():
        while True:
            try:
                document = await store.get("t/count", limit_bytes=100)
                number, condition = int(document.data), Condition("if_match", document.etag)
            except (KeyMissing, StoreMissing):
                number, condition = 0, IF_ABSENT
            try:
                await store.put("t/count", b"%d" % (number + 1), condition)
            except ConditionFailed:
                continue
            return

    async def main():
        for _ in range(25):
            await add_one()

    anyio.run(main)
    """
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(tmp_path / "store")]
        )
        for _ in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    assert (tmp_path / "store/t/count").read_bytes() == b"100"


def test_a_killed_writer_leaves_only_whole_objects(tmp_path: Path) -> None:
    script = """
    import os
    from snapd.model.ids import digest_of
    from snapd.model.layout import object_key

    def put_of(body):
        return Put(object_key(digest_of(body)), lambda: body, len(body))

    async def main():
        print("started", flush=True)
        while True:
            await store.put_batch([put_of(os.urandom(300_000)) for _ in range(8)])

    anyio.run(main)
    """
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(tmp_path)]
    objects = tmp_path / ".objects"
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"started\n"
        while len(list(objects.glob("*/*/*/*"))) < 20:
            assert writer.poll() is None
        writer.kill()
    found = list(objects.glob("*/*/*/*"))
    assert len(found) >= 20
    for path in found:
        name = "".join(path.relative_to(objects).parts)
        assert digest_of(path.read_bytes()) == name


async def put_large_cancelled_after(store: DirectoryStore, steps: int) -> bool:
    """Cancel a large write after some turns of the loop; tells whether it ended before that."""
    done = False

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"part"

    async def write() -> None:
        nonlocal done
        await store.put_large("t/large", parts(), size_bytes=16)
        done = True

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    return done


def held_and_staged(root: Path) -> tuple[bool, list[str]]:
    staging = root / STAGING
    return (root / "t/large").exists(), os.listdir(staging) if staging.exists() else []


async def test_cancelling_at_any_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    seen: set[bool] = set()
    steps, done = 0, False
    while not done:
        store = store_at(tmp_path / str(steps))
        done = await put_large_cancelled_after(store, steps)
        held, staged = held_and_staged(tmp_path / str(steps))
        assert staged == []
        assert held or not done
        if held:
            assert await read(store, "t/large") == b"part" * 4
        seen.add(held)
        steps += 1 + steps // 8
    assert seen == {False, True}
