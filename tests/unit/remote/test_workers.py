"""Transfer processes: real ones, before a real server, into a real cache."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, cast

import anyio
import anyio.from_thread
import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.disk.writers import BlobWriter
from snapd.model.errors import ConnectionLost, DigestMismatch
from snapd.model.ids import digest_of
from snapd.model.plan import ObjectRef
from snapd.model.settings import MIB, LogSettings, TransferSettings
from snapd.remote import worker_lane, workers
from snapd.remote.curl_lane import Channel, Part
from snapd.remote.exchanges import Origin, Reply, Request
from snapd.remote.lanes import Lanes, open_lanes
from snapd.remote.transport import open_transport
from snapd.remote.worker_frames import Frames, Message, frame, receive, values_of
from snapd.remote.worker_lane import serve
from snapd.remote.workers import SHORT_LIVES_MAX, StartWorker, WorkerLane, count_of, threads_of
from snapd.worker import WorkerStart
from tests.caching import assert_sound, staged

SETTINGS = TransferSettings(workers=1, objects_in_flight=8)
PATIENCE_SECONDS = 30


@dataclass
class Bodies:
    """A server of bodies by path; `gate` holds back all answers while it is closed.

    Of a path in `cut_short` all but the last byte is sent before the connection is closed.
    """

    url: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    cut_short: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def await_asked(self, count: int) -> None:
        for _ in range(count):
            assert self.asked.acquire(timeout=PATIENCE_SECONDS)


@pytest.fixture
def server() -> Iterator[Bodies]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.asked.release()
            served.gate.wait(PATIENCE_SECONDS)
            body = served.bodies.get(self.path)
            self.send_response(200 if body is not None else 404)
            answer = b"<Code>NoSuchKey</Code>" if body is None else body
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.path in served.cut_short:
                self.close_connection = True
                answer = answer[:-1]
            with suppress(ConnectionError):
                self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        served = Bodies(f"http://127.0.0.1:{listener.server_address[1]}")
        served.gate.set()
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield served
        served.gate.set()
        listener.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", fsync="off", now=lambda: 7.0) as opened:
        yield opened


@asynccontextmanager
async def warm(start: StartWorker) -> AsyncIterator[Lanes]:
    async with open_lanes(SETTINGS, start) as lanes:
        lanes.warm_up()
        await until_ready(lanes)
        yield lanes


async def until_ready(lanes: Lanes) -> WorkerLane:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not isinstance(lanes.for_small()[0], WorkerLane):  # noqa: ASYNC110 - no event for it
            await anyio.sleep(0.01)
    lane = lanes.for_small()[0]
    assert isinstance(lane, WorkerLane)
    return lane


def starter(cache: Cache) -> WorkerStart:
    return WorkerStart(cache.press_terms, SETTINGS, LogSettings(), 2)


def asks(cache: Cache, *refs: ObjectRef) -> list[Request]:
    requests = []
    for ref in refs:
        sink = cache.blobs.writer(ref, source="test")
        requests.append(Request("GET", f"/{ref.digest}", sink, sink))
    return requests


def offer(server: Bodies, body: bytes, *, size_bytes: int | None = None) -> ObjectRef:
    digest = digest_of(body)
    server.bodies[f"/{digest}"] = body
    return ObjectRef(digest, 0o640, len(body) if size_bytes is None else size_bytes, "./x")


async def run(lanes: Lanes, server: Bodies, requests: list[Request]) -> list[Reply]:
    async with open_transport(SETTINGS, lanes) as transport:
        return await transport.run(requests, Origin(server.url, ""))


def read(path: str) -> bytes:
    return Path(path).read_bytes()


@contextmanager
def left_in_order(cache: Cache) -> Iterator[None]:
    yield
    assert_sound(cache.root)
    assert staged(cache.root) == []


async def test_objects_arrive_and_their_files_are_told(cache: Cache, server: Bodies) -> None:
    refs = [offer(server, b"%d" % number * 1000) for number in range(50)]
    with left_in_order(cache):
        async with warm(starter(cache)) as lanes:
            first = await run(lanes, server, asks(cache, *refs))
            again = await run(lanes, server, asks(cache, *refs))
    assert all(reply.ok for reply in first + again)
    assert [reply.size_bytes for reply in first] == [ref.size_bytes for ref in refs]
    assert [reply.facts for reply in first] == [
        cache.blobs.stat(f"{ref.digest}.640".encode()) for ref in refs
    ]
    assert [reply.facts for reply in again] == [None] * 50


async def test_what_is_wrong_comes_back_as_from_a_thread(cache: Cache, server: Bodies) -> None:
    good, wrong = offer(server, b"good"), offer(server, b"wrong")
    server.bodies[f"/{wrong.digest}"] = b"wreng"
    absent = good._replace(digest=digest_of(b"absent"))
    with left_in_order(cache):
        async with warm(starter(cache)) as lanes:
            replies = await run(lanes, server, asks(cache, good, wrong, absent))
    assert replies[0].ok
    assert isinstance(replies[1].error, DigestMismatch)
    assert read(replies[1].error.details["quarantined"]) == b"wreng"
    assert (replies[2].status, replies[2].body) == (404, b"<Code>NoSuchKey</Code>")


async def test_a_body_that_is_longer_than_announced_is_streamed(
    cache: Cache, server: Bodies
) -> None:
    # The size of a link that was followed is the length of its text.
    ref = offer(server, os.urandom(3 * MIB), size_bytes=11)
    with left_in_order(cache):
        async with warm(starter(cache)) as lanes:
            [reply] = await run(lanes, server, asks(cache, ref))
    assert reply.ok
    assert reply.size_bytes == 3 * MIB
    assert cache.blobs.verify(ref.digest, 0o640)


def held_open(lane: WorkerLane, cache: Cache) -> list[str]:
    """Tell which files without a name the worker has open."""
    folder = Path(f"/proc/{lane.process.pid}/fd")
    names = [os.readlink(entry) for entry in folder.iterdir()]
    return [name for name in names if str(cache.root) in name and "deleted" in name]


async def test_a_streamed_body_that_breaks_off_leaves_nothing_in_the_worker(
    cache: Cache, server: Bodies
) -> None:
    ref = offer(server, os.urandom(3 * MIB), size_bytes=11)
    server.cut_short.add(f"/{ref.digest}")
    with left_in_order(cache):
        async with warm(starter(cache)) as lanes:
            lane = await until_ready(lanes)
            [reply] = await run(lanes, server, asks(cache, ref))
            assert held_open(lane, cache) == []
    assert not reply.ok
    assert reply.curl_code


async def test_an_answer_that_makes_no_sense_ends_the_call(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()
    said: list[object] = []
    monkeypatch.setattr(loop, "call_exception_handler", said.append)
    lane = WorkerLane(cast("subprocess.Popen[bytes]", None))
    ended = anyio.Event()
    sink = cache.blobs.writer(ObjectRef(digest_of(b""), 0o640, 0, "./x"))
    with far:
        await loop.create_unix_connection(lambda: lane, sock=near)
        part = Part(
            [Request("GET", "/", sink, sink)], Origin("", ""), Channel(1), lambda _: ended.set()
        )
        lane.submit(part)
        [(_, number, *_)] = Frames().feed(await anyio.to_thread.run_sync(far.recv, 100_000))
        far.sendall(frame(("part", number, 0.0, [("nonsense",)])))
        with anyio.fail_after(PATIENCE_SECONDS):
            await ended.wait()
    assert isinstance(part.replies[0].error, ConnectionLost)
    assert said


def part_message(url: str, ref: ObjectRef, sink: BlobWriter) -> Message:
    return "part", 1, 2, 1, values_of(Origin(url, "")), [(f"/{ref.digest}", *sink.packed())]


def said_until_the_end(near: socket.socket) -> list[Message]:
    near.settimeout(PATIENCE_SECONDS)
    return list(Frames().feed(b"".join(iter(lambda: near.recv(4096), b""))))


def test_a_worker_that_breaks_hangs_up_without_an_answer(cache: Cache, server: Bodies) -> None:
    ref = offer(server, b"body")
    sink = cache.blobs.writer(ref)
    server.gate.clear()

    def messages() -> Iterator[Message]:
        yield part_message(server.url, ref, sink)
        server.await_asked(1)
        raise MemoryError

    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(MemoryError):
            serve(far, messages(), SETTINGS, lambda _: sink, lanes=1)
        assert said_until_the_end(near) == [("ready",)]


def test_a_worker_hangs_up_when_it_can_not_answer(
    cache: Cache, server: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = offer(server, b"body")
    sink = cache.blobs.writer(ref)

    def fail(*_: object) -> Message:
        raise MemoryError

    monkeypatch.setattr(worker_lane, "answer_of", fail)
    near, far = socket.socketpair()
    with near, far:
        near.sendall(frame(part_message(server.url, ref, sink)))
        serve(far, receive(far), SETTINGS, lambda _: sink, lanes=1)
        assert said_until_the_end(near) == [("ready",)]


async def test_a_cancelled_call_stops_its_transfers(cache: Cache, server: Bodies) -> None:
    refs = [offer(server, b"%d" % number) for number in range(20)]
    server.gate.clear()
    with left_in_order(cache):
        async with warm(starter(cache)) as lanes:
            async with anyio.create_task_group() as group:
                group.start_soon(run, lanes, server, asks(cache, *refs))
                await anyio.to_thread.run_sync(server.await_asked, 1)
                group.cancel_scope.cancel()
            server.gate.set()
            [reply] = await run(lanes, server, asks(cache, refs[-1]))
            assert reply.ok
    assert cache.blobs.present(refs)[:-1] == [False] * 19


async def test_a_killed_worker_fails_what_it_had_and_is_replaced(
    cache: Cache, server: Bodies
) -> None:
    refs = [offer(server, b"%d" % number) for number in range(20)]
    server.gate.clear()
    replies: list[Reply] = []

    async def ask(lanes: Lanes) -> None:
        replies.extend(await run(lanes, server, asks(cache, *refs)))

    with left_in_order(cache):
        async with warm(starter(cache)) as lanes:
            lane = await until_ready(lanes)
            async with anyio.create_task_group() as group:
                group.start_soon(ask, lanes)
                await anyio.to_thread.run_sync(server.await_asked, 1)
                os.kill(lane.process.pid, signal.SIGKILL)
            server.gate.set()
            assert [type(reply.error) for reply in replies] == [ConnectionLost] * 20
            assert await until_ready(lanes) is not lane
            assert all(reply.ok for reply in await run(lanes, server, asks(cache, *refs)))


async def test_a_worker_that_hangs_is_killed_and_replaced(
    cache: Cache, server: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.5)
    refs = [offer(server, b"%d" % number) for number in range(20)]
    server.gate.clear()
    replies: list[Reply] = []

    async def ask(lanes: Lanes) -> None:
        replies.extend(await run(lanes, server, asks(cache, *refs)))

    with left_in_order(cache):
        async with warm(starter(cache)) as lanes:
            lane = await until_ready(lanes)
            async with anyio.create_task_group() as group:
                group.start_soon(ask, lanes)
                await anyio.to_thread.run_sync(server.await_asked, 1)
                os.kill(lane.process.pid, signal.SIGSTOP)
            monkeypatch.setattr(workers, "BEAT_SECONDS", 60.0)
            server.gate.set()
            assert [type(reply.error) for reply in replies] == [ConnectionLost] * 20
            assert await until_ready(lanes) is not lane
            assert lane.process.returncode == -signal.SIGKILL
            assert all(reply.ok for reply in await run(lanes, server, asks(cache, *refs)))


async def test_a_worker_that_hangs_gets_no_more_work_however_long_it_takes_to_die(
    cache: Cache, server: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.3)
    ref = offer(server, b"body")
    killed = anyio.Event()
    async with warm(starter(cache)) as lanes:
        lane = await until_ready(lanes)
        monkeypatch.setattr(lane.process, "kill", killed.set)
        os.kill(lane.process.pid, signal.SIGSTOP)
        with anyio.fail_after(PATIENCE_SECONDS):
            await killed.wait()
        # From here on nobody is in a hurry: the next one may be slow to give signs of life.
        monkeypatch.setattr(workers, "BEAT_SECONDS", 60.0)
        assert lane not in lanes.for_small()
        assert [reply.ok for reply in await run(lanes, server, asks(cache, ref))] == [True]
        os.kill(lane.process.pid, signal.SIGKILL)


async def test_a_worker_that_only_waits_gives_signs_of_life(
    cache: Cache, server: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.5)
    beats: list[bool] = []
    enough = anyio.Event()
    beat = WorkerLane.beat

    def watched(lane: WorkerLane) -> bool:
        beats.append(beat(lane))
        if len(beats) > workers.SILENT_BEATS_MAX + 1:
            enough.set()
        return beats[-1]

    monkeypatch.setattr(WorkerLane, "beat", watched)
    async with warm(starter(cache)) as lanes:
        lane = await until_ready(lanes)
        with anyio.fail_after(PATIENCE_SECONDS):
            await enough.wait()
        assert all(beats)
        assert await until_ready(lanes) is lane


_TELLING = (
    "import os, socket, sys\n"
    "from snapd.remote.worker_frames import frame, receive\n"
    "with socket.socket(fileno=int(sys.argv[1])) as near, open(sys.argv[2], 'a') as told:\n"
    "    near.sendall(frame(('ready',)))\n"
    "    for message in receive(near):\n"
    "        print(os.getpid(), *message, file=told, flush=True)\n"
    "        near.sendall(frame(('pong',)))\n"
)


async def test_workers_are_told_how_to_log_those_too_that_come_later(tmp_path: Path) -> None:
    told = tmp_path / "told"

    def start(far: socket.socket) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", _TELLING, str(far.fileno()), str(told)]
        return subprocess.Popen(words, pass_fds=(far.fileno(),))

    async def until_told(lane: WorkerLane) -> None:
        with anyio.fail_after(PATIENCE_SECONDS):
            line = f"{lane.process.pid} log {{'level': 'debug'}}\n"
            while line not in told.read_text():  # noqa: ASYNC110 - no event for it
                await anyio.sleep(0.01)

    async with warm(start) as lanes:
        first = await until_ready(lanes)
        lanes.set_log({"level": "debug"})
        await until_told(first)
        first.process.kill()
        with anyio.fail_after(PATIENCE_SECONDS):
            await first.gone.wait()
        await until_told(await until_ready(lanes))


def test_a_worker_answers_and_logs_as_it_is_told(cache: Cache) -> None:
    logs: list[object] = []
    near, far = socket.socketpair()
    with near, far:
        near.sendall(frame(("log", {"level": "debug"})) + frame(("ping",)))
        near.shutdown(socket.SHUT_WR)
        serve(far, receive(far), SETTINGS, _no_sink, lanes=1, set_up_log=logs.append)
        assert said_until_the_end(near) == [("ready",), ("pong",)]
    assert logs == [{"level": "debug"}]


def _no_sink(_packed: object) -> BlobWriter:
    raise AssertionError


async def test_without_workers_that_live_threads_do_the_work(cache: Cache, server: Bodies) -> None:
    started = []

    def stillborn(far: socket.socket) -> subprocess.Popen[bytes]:
        started.append(far)
        return subprocess.Popen([sys.executable, "-c", ""])

    ref = offer(server, b"body")
    async with open_lanes(SETTINGS, stillborn) as lanes:
        lanes.warm_up()
        with anyio.fail_after(PATIENCE_SECONDS):
            while len(started) < SHORT_LIVES_MAX:  # noqa: ASYNC110 - no event for it
                await anyio.sleep(0.01)
        [reply] = await run(lanes, server, asks(cache, ref))
    assert reply.ok
    assert len(started) == SHORT_LIVES_MAX


async def test_a_worker_that_never_gets_ready_is_killed_and_replaced(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(workers, "READY_SECONDS", 0.2)
    first: list[subprocess.Popen[bytes]] = []

    def sleepy_at_first(far: socket.socket) -> subprocess.Popen[bytes]:
        if not first:
            first.append(subprocess.Popen(["sleep", "1000"], pass_fds=[far.fileno()]))
            return first[0]
        monkeypatch.setattr(workers, "BEAT_SECONDS", 60.0)
        return starter(cache)(far)

    async with warm(sleepy_at_first):
        assert first[0].returncode == -signal.SIGKILL


def test_a_process_that_does_not_die_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "STOP_SECONDS", 0.05)
    with subprocess.Popen(["sleep", "1000"]) as process:
        killed: list[int] = []
        with monkeypatch.context() as deathless:
            deathless.setattr(process, "kill", lambda: killed.append(process.pid))
            workers._reap(process)
        assert killed == [process.pid]
        assert f"process {process.pid} was killed and does not die" in caplog.text
        process.kill()


async def test_a_worker_that_can_not_be_started_is_done_without(
    cache: Cache, server: Bodies
) -> None:
    tried = anyio.Event()

    def refused(_far: socket.socket) -> subprocess.Popen[bytes]:
        anyio.from_thread.run_sync(tried.set)
        raise PermissionError(13, "Permission denied", sys.executable)

    ref = offer(server, b"body")
    async with open_lanes(SETTINGS, refused) as lanes:
        lanes.warm_up()
        with anyio.fail_after(PATIENCE_SECONDS):
            await tried.wait()
        [reply] = await run(lanes, server, asks(cache, ref))
    assert reply.ok


async def test_leaving_ends_the_processes(cache: Cache) -> None:
    async with warm(starter(cache)) as lanes:
        lane = await until_ready(lanes)
        assert lane.process.poll() is None
    assert lane.process.poll() == 0


def test_a_worker_ends_when_its_node_is_gone(cache: Cache) -> None:
    near, far = socket.socketpair()
    with far:
        process = starter(cache)(far)
    near.close()
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize(
    ("workers", "processors", "count"), [("auto", 1, 0), ("auto", 4, 4), ("auto", 96, 8), (3, 1, 3)]
)
def test_how_many(
    workers: int | Literal["auto"], processors: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))
    assert count_of(TransferSettings(workers=workers)) == count


@pytest.mark.parametrize(("processors", "count"), [(1, 2), (2, 2), (16, 4), (96, 12)])
def test_how_many_threads(processors: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))
    assert threads_of(TransferSettings()) == count
    assert threads_of(TransferSettings(transfer_threads=5)) == 5
