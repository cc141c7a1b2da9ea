"""The daemon's engine in this process, on a cache of the user's own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio

from snapctl.caches import own_cache_directory
from snapctl.context import Context
from snapctl.progress import PullProgress, pull_progress
from snapd.model.care import Proof, ProofProgress
from snapd.model.errors import Interrupted, TimedOut
from snapd.model.ids import SnapshotId
from snapd.model.jobs import JobView, PullRequest
from snapd.model.settings import Settings
from snapd.node import open_node
from snapd.runtime.observer import SilentObserver

_SHOW_INTERVAL_SECONDS = 0.5


def pull_here(
    context: Context,
    request: PullRequest,
    *,
    cache_dir: str | None,
    deadline: float | None,
    stall_seconds: float | None = None,
) -> JobView:
    """Pull in this process and return the view of the job, which is done.

    Any store may be read: the caller's own permissions and credentials are the limit. Raises the
    job's error, `TimedOut` once `time.monotonic()` passes `deadline`, `Stalled` if it does not get
    on for `stall_seconds`, `Interrupted` on Ctrl-C;
    whatever was verified stays in the cache, and nothing half-done does.
    """
    _quiet_logs(context)
    settings = context.settings()
    directory = own_cache_directory(context, cache_dir)
    try:
        with pull_progress(context.output, time.monotonic, stall_seconds) as progress:
            return anyio.run(
                partial(_pull, settings, directory, request, deadline, progress),
                backend_options={"use_uvloop": True},
            )
    except KeyboardInterrupt:
        raise Interrupted("interrupted: what is verified so far stays in the cache") from None


async def _pull(
    settings: Settings,
    cache_directory: Path,
    request: PullRequest,
    deadline: float | None,
    progress: PullProgress,
) -> JobView:
    open_to_all = replace(settings, daemon=replace(settings.daemon, stores=("*",)))
    left = None if deadline is None else deadline - time.monotonic()
    with anyio.move_on_after(left):
        async with open_node(
            open_to_all,
            cache_directory=cache_directory,
            observer=SilentObserver(),
            now=time.time,  # noqa: TID251 - the clock that the node is given
        ) as node:
            job = await node.pulls.start(request)
            async with job.attached():
                async for view in job.changes(_SHOW_INTERVAL_SECONDS):
                    progress.update(view)
                view = await job.wait()
                await node.receipt(request.snapshot_id)
                return view
    raise TimedOut(
        f"the pull of {request.snapshot_id} did not end within --timeout",
        hint="Allow more time and run it again: what is verified stays in the cache.",
    )


def prove_here(
    context: Context,
    snapshot_id: SnapshotId,
    *,
    cache_dir: str | None,
    on_progress: Callable[[ProofProgress], None],
) -> Proof:
    """Prove a tree of the user's own cache in this process; see `snapd.actions.prove`."""
    _quiet_logs(context)
    settings = context.settings()
    directory = own_cache_directory(context, cache_dir)

    async def run() -> Proof:
        async with open_node(
            replace(settings, daemon=replace(settings.daemon, stores=("*",))),
            cache_directory=directory,
            observer=SilentObserver(),
            now=time.time,  # noqa: TID251 - the clock that the node is given
        ) as node:
            return await node.prove(snapshot_id, on_progress)

    return anyio.run(run, backend_options={"use_uvloop": True})


def _quiet_logs(context: Context) -> None:
    """Keep the engine's log lines out of the progress unless they are asked for."""
    logger = logging.getLogger("snapd")
    logger.propagate = False
    shown = context.verbose and not context.quiet
    logger.addHandler(logging.StreamHandler() if shown else logging.NullHandler())
