"""The daemon: a node, the control API in front of it, health beside it, signals above it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from aiohttp import web
from anyio import to_thread

from snapd import __version__
from snapd.api.access import Rules
from snapd.api.care import add_care
from snapd.api.control import control_app
from snapd.api.doctor import add_doctor
from snapd.api.follows import add_follows
from snapd.api.health import health_app
from snapd.api.leases import add_leases
from snapd.api.listening import control_socket
from snapd.api.manifests import add_manifests
from snapd.api.names import add_names
from snapd.api.openapi import add_openapi
from snapd.api.overview import Overviews, add_overview
from snapd.api.page import add_page
from snapd.api.peers import resolve_access
from snapd.api.receipts import add_receipts
from snapd.api.serving import serve_socket, serve_tcp
from snapd.api.space import add_space
from snapd.api.standing import Standing
from snapd.api.tokens import Token, read_token
from snapd.model.errors import SnapsyncError
from snapd.model.reload import plan_reload
from snapd.model.settings import Settings
from snapd.node import Node, open_node
from snapd.runtime.background import background_tasks
from snapd.runtime.log import set_up_logging
from snapd.runtime.metrics import Metrics
from snapd.runtime.notify import Supervisor
from snapd.runtime.observer import Observers
from snapd.runtime.tracing import open_tracing

logger = logging.getLogger(__name__)

STOP_AT_ONCE_SECONDS = 2.0
"""After a second signal, or when jobs do not end after the grace time, this much more at most."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a daemon was started. `settings` name the socket and the cache's directory."""

    settings: Settings
    load: Callable[[], Settings]
    """Reads the configuration again, for a reload; raises a `SnapsyncError` if it is unfit."""
    supervisor: Supervisor
    or_any_port: bool = False
    """A free port replaces a taken one: for a user's own daemon, which nobody scrapes."""
    control_fd: int | None = None
    """The control socket, if whoever started the daemon listens at it already."""


async def serve_until_signalled(launch: Launch) -> None:
    """Run the daemon under the signals of this process; see `serve`."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        await serve(launch, signals)


async def serve(launch: Launch, signals: AsyncIterable[signal.Signals]) -> None:
    """Run the daemon until a signal ends it.

    SIGTERM and SIGINT drain: no new pulls, running ones may end within the grace time. A second
    one stops at once. SIGHUP reloads the configuration. Raises `SocketBusy`, `CacheUnusable` or
    whatever else keeps it from starting.
    """
    daemon = Daemon(launch)
    standing, settings = daemon.standing, launch.settings.daemon
    async with background_tasks() as tasks:
        tasks.start_soon(daemon.obey, signals, tasks.cancel_scope)
        tasks.start_soon(standing.keep_watching_the_loop)
        tasks.start_soon(daemon.overviews.keep_sampling)
        tasks.start_soon(launch.supervisor.keep_beating, lambda: standing.unready_because() != "")
        with control_socket(
            Path(settings.socket),
            mode=settings.socket_mode,
            group=settings.socket_group,
            handed_over=launch.control_fd,
        ) as listener:
            async with daemon.healthy(), daemon.opened() as node:
                control = daemon.control(node)
                # Before anybody asks, because their watchers ask for the jobs by name.
                await node.pulls.resume()
                async with serve_socket(control, listener):
                    tasks.start_soon(node.warm_up)
                    node.pulls.admission.begin_sweeping()
                    node.scrub.begin()
                    await node.following.begin()
                    daemon.announce()
                    await daemon.stop_asked.wait()
                    await daemon.drain(node)
    logger.info("stopped")


@dataclass(frozen=True, slots=True)
class Permits:
    """What is looked up for settings that say who may do what."""

    rules: Rules
    token: Token | None

    @classmethod
    def of(cls, settings: Settings) -> Permits:
        """Look users, groups and the token up; raises `InvalidConfig` for one that is not there."""
        rules = Rules(resolve_access(settings.access), settings.daemon.stores)
        return cls(rules, read_token(settings.daemon.listen_token_file))


class Daemon:
    """What the parts of a running daemon share, and what signals do to it."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.metrics = Metrics(version=__version__)
        self.standing = Standing(launch.settings, self.metrics)
        self.overviews = Overviews(self.standing, time.time)  # noqa: TID251 - the one clock
        self.stop_asked = anyio.Event()
        self._permits = Permits.of(launch.settings)
        self._patience = anyio.CancelScope()

    def control(self, node: Node) -> web.Application:
        """Make what the control socket serves."""
        app = control_app(
            node.pulls,
            snapshots=node.snapshots,
            status=self.standing.status,
            rules=lambda: self._permits.rules,
        )
        add_overview(app, self.overviews)
        add_openapi(app)
        add_receipts(app, node.receipt)
        add_manifests(app, Path(self.standing.settings.cache.directory))
        add_leases(app, node)
        add_space(app, node)
        add_names(app, node.resolve)
        add_follows(app, node.following)
        add_care(app, node)
        add_doctor(app, node.diagnose)
        return app

    def health(self) -> web.Application:
        """Make what is served over TCP."""
        app = health_app(
            self.metrics,
            unready_because=self.standing.unready_because,
            numbers=self.standing.numbers,
            token=lambda: self._permits.token,
        )
        add_page(app)
        add_overview(app, self.overviews)
        add_openapi(app)
        return app

    @asynccontextmanager
    async def healthy(self) -> AsyncIterator[None]:
        """Serve health and metrics, from before the node is open until after it is closed."""
        listen = self.standing.settings.daemon.listen
        if not listen:
            yield
            return
        async with serve_tcp(
            self.health(), listen, or_any_port=self._launch.or_any_port
        ) as address:
            self.standing.listen = address
            yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Node]:
        """Keep the node open."""
        settings = self.standing.settings
        now = time.time  # noqa: TID251 - the one clock, handed down
        async with (
            open_tracing(settings.tracing, version=__version__, now=now) as tracing,
            open_node(
                settings,
                cache_directory=Path(settings.cache.directory),
                observer=Observers(self.metrics, tracing),
                now=now,
            ) as node,
        ):
            self.standing.node = node
            try:
                yield node
            finally:
                self.standing.node = None

    def announce(self) -> None:
        """Say that pulls are accepted, and where."""
        settings = self.standing.settings
        logger.info(
            "ready",
            extra={
                "version": __version__,
                "socket": settings.daemon.socket,
                "cache": settings.cache.directory,
                "listen": self.standing.listen or "off",
                "stores": " ".join(settings.daemon.stores) or "none",
            },
        )
        self._say_whether_sealed()
        if not settings.daemon.stores:
            logger.warning(
                "no store is allowed, so every pull will be refused; "
                "set `[daemon] stores` or give --store"
            )
        self._tell_that_it_serves()

    def _say_whether_sealed(self) -> None:
        if self.standing.node is None:
            return
        seal = self.standing.node.cache.seal
        if seal.active:
            logger.info("objects are sealed with fs-verity")
        else:
            logger.info("objects are not sealed", extra={"because": seal.reason})

    async def obey(
        self, signals: AsyncIterable[signal.Signals], everything: anyio.CancelScope
    ) -> None:
        """Do what each signal asks for."""
        async for received in signals:
            if received == signal.SIGHUP:
                await self.reload()
            elif self.stop_asked.is_set():
                logger.warning("stopping at once", extra={"by": received.name})
                self._patience.cancel()
            elif self.standing.node is None:
                logger.info("stopping before the start was complete", extra={"by": received.name})
                everything.cancel()
            else:
                logger.info("draining", extra={"by": received.name})
                self.standing.draining = True
                self.stop_asked.set()

    async def drain(self, node: Node) -> None:
        """Accept no new pulls and let the running ones end, as long as patience lasts."""
        grace_seconds = self.standing.settings.daemon.grace_seconds
        self._launch.supervisor.stopping(f"draining for at most {grace_seconds:.0f} s")
        with self._patience, anyio.move_on_after(grace_seconds + STOP_AT_ONCE_SECONDS):
            await node.pulls.drain(grace_seconds)
        if self._patience.cancelled_caught:
            with anyio.move_on_after(STOP_AT_ONCE_SECONDS):
                await node.pulls.drain(0)

    async def reload(self) -> None:
        """Read the configuration again and take over what can change; a bad one changes nothing."""
        self._launch.supervisor.reloading()
        try:
            wanted = await to_thread.run_sync(self._launch.load)
            running = plan_reload(self.standing.settings, wanted).settings
            self._permits = await to_thread.run_sync(Permits.of, running)
        except SnapsyncError as error:
            logger.error("the configuration is refused, the former stays: %s", error.message)  # noqa: TRY400
            self.metrics.on_reload(accepted=False)
        else:
            self._take_over(wanted)
            self.metrics.on_reload(accepted=True)
        self._tell_that_it_serves()

    def _take_over(self, wanted: Settings) -> None:
        plan = plan_reload(self.standing.settings, wanted)
        self.standing.settings = plan.settings
        set_up_logging(plan.settings.log)
        if self.standing.node is not None:
            self.standing.node.apply(plan.settings)
        logger.info("reloaded", extra={"changed": " ".join(plan.changed) or "nothing"})
        if plan.need_restart:
            logger.warning(
                "these changes need a restart", extra={"keys": " ".join(plan.need_restart)}
            )

    def _tell_that_it_serves(self) -> None:
        if not self.standing.unready_because():
            self._launch.supervisor.ready(f"serving {self.standing.settings.daemon.socket}")
