"""Sinks that record what a store does to them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from snapd.remote.base import Get, GetOutcome, Got, RemoteStore


class RecordingSink:
    """Keeps the body and the order of the calls; may raise in one of them."""

    def __init__(self, *, fails_in: str = "", error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.buffer = bytearray()
        self.threads: set[int] = set()
        self._fails_in = fails_in
        self._error = error

    @property
    def body(self) -> bytes:
        return bytes(self.buffer)

    @property
    def starts(self) -> int:
        return self.calls.count("start")

    @property
    def finished(self) -> bool:
        return self.calls[-1:] == ["finish"]

    def start(self) -> None:
        self.buffer.clear()
        self._note("start")

    def write(self, data: bytes | memoryview) -> None:
        self.buffer += data
        self._note("write")

    def finish(self) -> None:
        self._note("finish")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())
        if call == self._fails_in and self._error is not None:
            raise self._error


class TwoFacedSink(RecordingSink):
    """Takes bodies of up to `limit_bytes` at once as well, in this process."""

    limit_bytes = 64 * 1024

    def packed(self) -> tuple[str | int, ...]:
        raise AssertionError("there is no other process")

    def take(self, pieces: list[bytes]) -> None:
        self.start()
        for piece in pieces:
            self.write(piece)
        self.finish()


class GatedSink(RecordingSink):
    """Blocks in its first write until somebody opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.gate = threading.Event()

    def write(self, data: bytes | memoryview) -> None:
        super().write(data)
        if not self.reached.is_set():
            self.reached.set()
            self.gate.wait(10)


async def read(store: RemoteStore, key: str) -> bytes:
    """Read an object whole, or raise what the store said."""
    sink = RecordingSink()
    return body_of((await store.get_batch([Get(key, sink)]))[0], sink)


async def read_all(store: RemoteStore, keys: Sequence[str]) -> list[bytes]:
    """Read objects whole in one batch, or raise what the store said of the first that failed."""
    sinks = [RecordingSink() for _ in keys]
    gets = [Get(key, sink) for key, sink in zip(keys, sinks, strict=True)]
    outcomes = await store.get_batch(gets)
    return [body_of(outcome, sink) for outcome, sink in zip(outcomes, sinks, strict=True)]


def body_of(outcome: GetOutcome, sink: RecordingSink) -> bytes:
    """Give the bytes of a successful GET, whose sink and outcome must agree; raise a failure."""
    if not isinstance(outcome, Got):
        raise outcome
    assert sink.finished
    assert outcome.size_bytes == len(sink.buffer)
    return sink.body
