from __future__ import annotations

import errno
import json
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import pytest

from snapd.disk import fsops, writers
from snapd.disk.cache import Cache, open_cache
from snapd.disk.writers import LargeBlobWriter
from snapd.model.errors import ActionFailed, ConnectionLost, DigestMismatch, NoSpace
from snapd.model.ids import EMPTY_DIGEST
from snapd.model.plan import ObjectRef
from snapd.model.settings import MIB
from tests.caching import ref_of, staged


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        yield opened


def nothing_left(cache: Cache) -> bool:
    """Tell whether neither a file nor an open descriptor without a name is left."""
    descriptors = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            descriptors.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    own = [name for name in descriptors if str(cache.root) in name and "deleted" in name]
    return own == [] and staged(cache.root) == []


@pytest.mark.parametrize("size", [0, 1, 4096, 3 * MIB])
def test_an_object_gets_its_name_when_it_is_finished(size: int, cache: Cache) -> None:
    body = os.urandom(size)
    ref = ref_of(body, 0o640)
    writer = cache.blobs.writer(ref)
    writer.start()
    for offset in range(0, size, 100_000):
        writer.write(memoryview(body)[offset : offset + 100_000])
    assert not cache.blobs.has(ref.digest, 0o640)
    writer.finish()
    path = cache.blobs.path(ref.digest, 0o640)
    assert path.read_bytes() == body
    assert path.stat().st_mode & 0o7777 == 0o640
    assert nothing_left(cache)


def test_the_size_of_a_manifest_may_be_wrong_in_both_directions(cache: Cache) -> None:
    body = os.urandom(2 * MIB + 5)
    for size_hint in (3, 2**64 - 1):
        ref = ref_of(body)._replace(size_bytes=size_hint, mode=size_hint % 0o777)
        writer = cache.blobs.writer(ref)
        writer.start()
        for offset in range(0, len(body), 65536):
            writer.write(body[offset : offset + 65536])
        writer.finish()
        assert cache.blobs.verify(ref.digest, ref.mode)
    assert nothing_left(cache)


@pytest.fixture
def cramped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """A cache on a disk with room for 10 MiB beyond the 512 MiB that stay free."""

    def space(path: str | os.PathLike[str] | int) -> fsops.DiskSpace:
        written = sum(
            os.stat(f"/proc/self/fd/{fd}").st_size
            for fd in os.listdir("/proc/self/fd")
            if "/cramped/" in os.path.realpath(f"/proc/self/fd/{fd}")
        )
        return fsops.DiskSpace(1024 * 1024 * MIB, 522 * MIB - written)

    root = tmp_path / "cramped"
    with open_cache(root, now=lambda: 7.0) as opened:
        monkeypatch.setattr(fsops, "space", space)
        yield opened


def test_a_body_that_never_ends_leaves_what_is_to_stay_free(cramped: Cache) -> None:
    told: list[int] = []
    ref = ref_of(b"short")
    writer = cramped.blobs.writer(ref, told.append)
    writer.start()
    with pytest.raises(NoSpace) as refused:
        for _ in range(20):
            writer.write(bytes(MIB))
    assert 7 * MIB < max(accumulate(told)) <= 10 * MIB
    assert sum(told) == 0
    assert refused.value.details["object"] == ref.digest
    assert "longer than the 5 B" in refused.value.message
    assert refused.value.details["available_bytes"] <= 10 * MIB
    assert refused.value.details["required_bytes"] > refused.value.details["available_bytes"]
    assert nothing_left(cramped)


@pytest.mark.parametrize("way", ["stream", "whole"])
def test_small_objects_that_are_a_little_longer_do_not_fill_the_disk_either(
    way: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(500_000)
    linked = ref_of(body)._replace(size_bytes=20)
    little = fsops.DiskSpace(1024 * 1024 * MIB, 512 * MIB + 400_000)
    monkeypatch.setattr(fsops, "space", lambda _path: little)

    def bring(ref: ObjectRef) -> None:
        writer = cache.blobs.writer(ref)
        writer.start()
        if way == "whole":
            writer.take([body[:400_000], body[400_000:]])
            return
        writer.write(body)
        writer.finish()

    with pytest.raises(NoSpace) as refused:
        bring(linked)
    assert refused.value.details["required_bytes"] == 499_980
    assert refused.value.details["available_bytes"] == 400_000
    assert nothing_left(cache)
    assert not cache.blobs.has(linked.digest, linked.mode)
    bring(ref_of(body))
    assert cache.blobs.has(linked.digest, linked.mode)


def test_a_body_of_the_announced_length_was_reckoned_with(cramped: Cache) -> None:
    body = os.urandom(20 * MIB)
    ref = ref_of(body)
    writer = cramped.blobs.writer(ref)
    writer.start()
    for offset in range(0, len(body), MIB):
        writer.write(body[offset : offset + MIB])
    writer.finish()
    assert cramped.blobs.verify(ref.digest, ref.mode)


def test_a_large_object_that_has_grown_is_refused_before_its_first_byte(cramped: Cache) -> None:
    with pytest.raises(NoSpace):
        cramped.blobs.large_writer(ref_of(b"short"), 11 * MIB)
    assert nothing_left(cramped)


def test_large_objects_that_grow_at_once_are_each_refused_in_time(cramped: Cache) -> None:
    with ExitStack() as stack:
        first = cramped.blobs.large_writer(ref_of(b"short"), 8 * MIB)
        stack.callback(first.discard)
        second = cramped.blobs.large_writer(ref_of(b"other"), 8 * MIB)
        stack.callback(second.discard)
        sink = first.part(0, 8 * MIB)
        sink.start()
        sink.write(bytes(8 * MIB))
        with pytest.raises(NoSpace):
            second.part(0, 8 * MIB).start()
    assert nothing_left(cramped)


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_second_start_forgets_what_came_before(size: int, cache: Cache) -> None:
    body = os.urandom(size)
    ref = ref_of(body)._replace(size_bytes=0)
    told: list[int] = []
    writer = cache.blobs.writer(ref, told.append)
    writer.start()
    writer.write(b"something else" * (size // 10))
    writer.start()
    writer.write(body)
    assert sum(told) == size
    writer.finish()
    assert sum(told) == size
    assert cache.blobs.verify(ref.digest, 0o644)
    assert nothing_left(cache)


@pytest.mark.parametrize("size", [0, 10, 3 * MIB])
def test_wrong_bytes_end_in_the_quarantine(size: int, cache: Cache) -> None:
    wrong = os.urandom(size)
    ref = ObjectRef(ref_of(b"right").digest, 0o644, 5, "./a/b")
    told: list[int] = []
    writer = cache.blobs.writer(ref, told.append, source="s3://bucket")
    writer.start()
    writer.write(wrong)
    with pytest.raises(DigestMismatch, match=r"\./a/b") as caught:
        writer.finish()
    details = caught.value.details
    assert details["object"] == details["expected"] == ref.digest
    assert details["actual"] == ref_of(wrong).digest
    assert Path(details["quarantined"]).read_bytes() == wrong
    note = json.loads(Path(details["quarantined"] + ".json").read_text())
    assert (note["source"], note["path"], note["at"]) == ("s3://bucket", "./a/b", 7.0)
    assert not cache.blobs.has(ref.digest, 0o644)
    assert sum(told) == 0
    assert nothing_left(cache)


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_discard_leaves_nothing_and_may_be_repeated(size: int, cache: Cache) -> None:
    writer = cache.blobs.writer(ref_of(b"whatever"))
    writer.discard()
    writer.start()
    writer.write(b"x" * size)
    writer.discard()
    writer.discard()
    assert nothing_left(cache)


def test_an_object_that_somebody_else_brought_meanwhile_is_success(cache: Cache) -> None:
    ref = ref_of(b"same")
    first, second = cache.blobs.writer(ref), cache.blobs.writer(ref)
    for writer in (first, second):
        writer.start()
        writer.write(b"same")
    first.finish()
    inode = cache.blobs.path(ref.digest, 0o644).stat().st_ino
    second.finish()
    assert cache.blobs.path(ref.digest, 0o644).stat().st_ino == inode
    assert nothing_left(cache)


def test_without_unnamed_files_names_in_staging_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapd.disk.fsops.can_link_unnamed", lambda *_: False)
    with open_cache(tmp_path / "other", now=lambda: 7.0) as cache:
        for size in (10, 3 * MIB):
            test_an_object_gets_its_name_when_it_is_finished(size, cache)
            test_wrong_bytes_end_in_the_quarantine(size, cache)
            test_discard_leaves_nothing_and_may_be_repeated(size, cache)


PART_BYTES = 100_000


def put_part(writer: LargeBlobWriter, body: bytes, offset: int) -> None:
    piece = memoryview(body)[offset : offset + PART_BYTES]
    sink = writer.part(offset, len(piece))
    sink.start()
    for at in range(0, len(piece), 7_000):
        sink.write(piece[at : at + 7_000])
    sink.finish()


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_parts_may_come_in_any_order_from_many_threads(order: str, cache: Cache) -> None:
    body = os.urandom(31 * PART_BYTES + 123)
    ref = ref_of(body)
    told: list[int] = []
    writer = cache.blobs.large_writer(ref, len(body), told.append)
    offsets = list(range(0, len(body), PART_BYTES))
    if order == "backward":
        offsets.reverse()
    elif order == "random":
        random.Random(4).shuffle(offsets)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda offset: put_part(writer, body, offset), offsets))
    assert writer._hashed_bytes == len(body)
    assert not writer._must_reread
    writer.finish()
    assert cache.blobs.path(ref.digest, 0o644).read_bytes() == body
    assert sum(told) == len(body)
    assert nothing_left(cache)


def test_a_part_is_hashed_when_finish_returns_unless_an_earlier_one_is_missing(
    cache: Cache,
) -> None:
    body = os.urandom(3 * PART_BYTES)
    writer = cache.blobs.large_writer(ref_of(body), len(body))
    put_part(writer, body, PART_BYTES)
    assert writer._hashed_bytes == 0
    put_part(writer, body, 0)
    assert writer._hashed_bytes == 2 * PART_BYTES
    put_part(writer, body, 2 * PART_BYTES)
    writer.finish()
    assert cache.blobs.verify(ref_of(body).digest, 0o644)


def test_bytes_that_are_next_in_line_are_hashed_at_once_and_not_read_back(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(2 * PART_BYTES)
    writer = cache.blobs.large_writer(ref_of(body), len(body))
    monkeypatch.delattr(writers, "hash_stretch")
    sink = writer.part(0, PART_BYTES)
    sink.start()
    sink.write(body[:1000])
    assert writer._hashed_bytes == 1000
    sink.write(body[1000:PART_BYTES])
    sink.finish()
    put_part(writer, body, PART_BYTES)
    assert writer._hashed_bytes == len(body)
    writer.finish()
    assert cache.blobs.path(ref_of(body).digest, 0o644).read_bytes() == body


def test_a_part_whose_turn_comes_in_its_middle_is_caught_up_with(cache: Cache) -> None:
    body = os.urandom(2 * PART_BYTES)
    writer = cache.blobs.large_writer(ref_of(body), len(body))
    later = writer.part(PART_BYTES, PART_BYTES)
    later.start()
    later.write(body[PART_BYTES : PART_BYTES + 1000])
    put_part(writer, body, 0)
    assert writer._hashed_bytes == PART_BYTES
    later.write(body[PART_BYTES + 1000 : -1])
    assert writer._hashed_bytes == len(body) - 1
    later.write(body[-1:])
    later.finish()
    writer.finish()
    assert cache.blobs.verify(ref_of(body).digest, 0o644)


@pytest.mark.parametrize("again", [0, PART_BYTES])
def test_a_part_that_starts_again_forgets_its_bytes(again: int, cache: Cache) -> None:
    body = os.urandom(3 * PART_BYTES)
    told: list[int] = []
    writer = cache.blobs.large_writer(ref_of(body), len(body), told.append)
    if again:
        put_part(writer, body, 0)
    sink = writer.part(again, PART_BYTES)
    sink.start()
    sink.write(b"wrong" * 100)
    assert writer._hashed_bytes == again + 500
    sink.start()
    assert writer._hashed_bytes == again
    sink.write(body[again : again + PART_BYTES])
    sink.finish()
    for offset in range(again + PART_BYTES, len(body), PART_BYTES):
        put_part(writer, body, offset)
    assert not writer._must_reread
    writer.finish()
    assert sum(told) == len(body)
    assert cache.blobs.verify(ref_of(body).digest, 0o644)


def test_a_part_that_was_hashed_already_may_come_again(cache: Cache) -> None:
    body = os.urandom(2 * PART_BYTES)
    writer = cache.blobs.large_writer(ref_of(body), len(body))
    put_part(writer, bytes(PART_BYTES), 0)
    put_part(writer, body, 0)
    put_part(writer, body, PART_BYTES)
    writer.finish()
    assert cache.blobs.verify(ref_of(body).digest, 0o644)


def test_wrong_parts_end_in_the_quarantine(cache: Cache) -> None:
    body, ref = os.urandom(2 * PART_BYTES), ref_of(b"another")
    writer = cache.blobs.large_writer(ref, len(body))
    put_part(writer, body, 0)
    put_part(writer, body, PART_BYTES)
    with pytest.raises(DigestMismatch) as caught:
        writer.finish()
    assert Path(caught.value.details["quarantined"]).read_bytes() == body
    assert not cache.blobs.has(ref.digest, 0o644)
    assert nothing_left(cache)


def test_parts_that_are_short_long_or_missing_are_refused(cache: Cache) -> None:
    writer = cache.blobs.large_writer(ref_of(b"x"), 200)
    sink = writer.part(0, 100)
    sink.start()
    sink.write(b"x" * 99)
    with pytest.raises(ConnectionLost, match="99 of the 100"):
        sink.finish()
    with pytest.raises(ConnectionLost, match="more than the 100"):
        sink.write(b"xx")
    with pytest.raises(ConnectionLost, match="not all parts"):
        writer.finish()
    assert nothing_left(cache)


def test_an_empty_object_needs_no_part(cache: Cache) -> None:
    writer = cache.blobs.large_writer(ObjectRef(EMPTY_DIGEST, 0o600, 0, "./e"), 0)
    writer.finish()
    assert cache.blobs.verify(EMPTY_DIGEST, 0o600)


def test_discarding_a_large_object_leaves_nothing(cache: Cache) -> None:
    body = os.urandom(3 * PART_BYTES)
    writer = cache.blobs.large_writer(ref_of(body), len(body))
    put_part(writer, body, PART_BYTES)
    writer.discard()
    writer.discard()
    assert nothing_left(cache)
    with pytest.raises(ActionFailed, match="not being written"):
        put_part(writer, body, 0)


def test_the_file_stays_open_for_a_part_that_is_being_written_while_all_is_discarded(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(PART_BYTES)
    writer = cache.blobs.large_writer(ref_of(body), len(body))
    inside, go_on = threading.Event(), threading.Event()
    real = os.pwrite

    def slow(fd: int, data: bytes, offset: int) -> int:
        inside.set()
        assert go_on.wait(10)
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    with ThreadPoolExecutor(1) as threads:
        putting = threads.submit(put_part, writer, body, 0)
        assert inside.wait(10)
        writer.discard()
        assert not nothing_left(cache)
        go_on.set()
        with pytest.raises(ActionFailed, match="not being written any more"):
            putting.result(10)
    assert nothing_left(cache)


def test_a_body_that_comes_whole_leaves_nothing_of_an_attempt_that_broke_off(cache: Cache) -> None:
    body = os.urandom(100)
    told: list[int] = []
    writer = cache.blobs.writer(ref_of(body), told.append)
    writer.start()
    writer.write(bytes(2 * MIB))
    assert writer.take([body]) is not None
    assert sum(told) == len(body)
    assert nothing_left(cache)


def test_finish_goes_on_when_the_hashing_that_it_waits_for_fails(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(MIB)
    ref = ref_of(body)
    writer = cache.blobs.large_writer(ref, len(body))
    hashing, waiting = threading.Event(), threading.Event()

    def fail(*_: object) -> None:
        hashing.set()
        assert waiting.wait(10)
        raise OSError(errno.EIO, "a bad sector")

    woken: list[bool] = []

    def wait() -> None:
        waiting.set()
        woken.append(threading.Condition.wait(writer._state, 10))

    monkeypatch.setattr(writers, "hash_stretch", fail)
    monkeypatch.setattr(writer._state, "wait", wait)
    half = len(body) // 2
    later = writer.part(half, half)
    later.start()
    later.write(body[half:])
    later.finish()
    with ThreadPoolExecutor() as pool:
        sink = writer.part(0, half)
        sink.start()
        sink.write(body[:half])
        taken = pool.submit(sink.finish)
        assert hashing.wait(10)
        writer.finish()
        assert isinstance(taken.exception(), ActionFailed)
    assert woken == [True]
    assert cache.blobs.verify(ref.digest, ref.mode)
