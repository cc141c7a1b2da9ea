"""A whole daemon inside the test, on a store in a directory, under signals that the test sends."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from anyio.streams.memory import MemoryObjectSendStream

from snapd.daemon import Launch, serve
from snapd.disk.locks import RangeLock, snapshot_lock
from snapd.model.settings import CacheSettings, DaemonSettings, LogSettings, Settings
from snapd.runtime.notify import Supervisor
from tests.samples import Sample, sample

SAMPLE = sample({"a": b"alpha", "dir/b": b"beta" * 1000})


@dataclass
class Running:
    """A daemon that was started, a client of it, and its levers."""

    settings: Settings
    wanted: Settings | Exception
    client: aiohttp.ClientSession
    ended: anyio.Event = field(default_factory=anyio.Event)
    signals: MemoryObjectSendStream[signal.Signals] = field(init=False)

    @property
    def store(self) -> str:
        return self.settings.daemon.stores[0]

    @property
    def cache(self) -> Path:
        return Path(self.settings.cache.directory)

    def load(self) -> Settings:
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted

    async def ask(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        async with self.client.request(method, f"http://snapd{path}", **arguments) as response:
            return response.status, await response.json()

    async def status(self) -> dict[str, Any]:
        code, document = await self.ask("GET", "/v1/status")
        assert code == 200
        return dict(document)

    async def get(self, path: str) -> tuple[int, str]:
        """Ask over TCP."""
        listen = (await self.status())["listen"]
        async with aiohttp.request("GET", f"http://{listen}{path}") as response:
            return response.status, await response.text()

    async def start_pull(self, snapshot: Sample = SAMPLE, **more: Any) -> tuple[int, Any]:
        body = {"id": snapshot.id, "store": self.store, "detach": True, **more}
        return await self.ask("POST", "/v1/pulls", json=body)

    async def job_ended(self, job_id: str) -> dict[str, Any]:
        async with self.watching(job_id) as events:
            return await last_view(events)

    @asynccontextmanager
    async def watching(self, job_id: str) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self.client.get(f"http://snapd/v1/jobs/{job_id}/events") as response:
            assert response.status == 200
            yield response

    def hold(self, snapshot: Sample = SAMPLE) -> RangeLock:
        """While it is held, pulls of a snapshot wait, as for another process that pulls it."""
        return snapshot_lock(self.cache / "locks", snapshot.id)

    async def until_ready(self) -> None:
        """Wait until the control socket answers; it accepts connections before that."""
        while True:
            try:
                await self.status()
            except aiohttp.ClientConnectorError:
                await anyio.sleep(0.01)
            else:
                return


async def last_view(events: aiohttp.ClientResponse) -> dict[str, Any]:
    """Read events to their end."""
    lines = (await events.text()).splitlines()
    return dict(json.loads(lines[-1]))


StartDaemon = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for key, data in SAMPLE.keys().items():
        path = tmp_path / "store" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Settings(
        daemon=DaemonSettings(
            socket=str(tmp_path / "run" / "s.sock"),
            listen="127.0.0.1:0",
            stores=(f"file://{tmp_path}/store",),
            grace_seconds=30.0,
        ),
        cache=CacheSettings(directory=str(tmp_path / "cache"), fsync="off"),
        log=LogSettings(level="debug"),
    )


@pytest.fixture
def start_daemon(settings: Settings) -> StartDaemon:
    @asynccontextmanager
    async def start(*, notify: str = "", **changes: Any) -> AsyncIterator[Running]:
        used = replace(settings, daemon=replace(settings.daemon, **changes))
        connector = aiohttp.UnixConnector(used.daemon.socket, limit=0)
        sender, receiver = anyio.create_memory_object_stream[signal.Signals](10)
        async with (
            sender,
            receiver,
            aiohttp.ClientSession(connector=connector) as client,
            anyio.create_task_group() as tasks,
        ):
            running = Running(used, used, client)
            running.signals = sender

            async def run() -> None:
                await serve(Launch(used, running.load, Supervisor(notify)), receiver)
                running.ended.set()

            tasks.start_soon(run)
            with anyio.fail_after(60):
                await running.until_ready()
            yield running
            if not running.ended.is_set():
                await sender.send(signal.SIGTERM)
                await sender.send(signal.SIGTERM)
            with anyio.fail_after(60):
                await running.ended.wait()

    return start
