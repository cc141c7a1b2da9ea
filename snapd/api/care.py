"""Routes about the care of the cache: how the scrub stands, and the proof of a tree."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

import anyio
from aiohttp import web

from snapd.api.events import Pace
from snapd.model.care import Proof, ProofProgress, ScrubView
from snapd.model.errors import InternalError, SnapsyncError
from snapd.model.ids import SnapshotId, parse_snapshot_id

logger = logging.getLogger(__name__)


class Care(Protocol):
    """The part of a node that the routes need."""

    async def scrub_view(self) -> ScrubView:
        """Show how the scrub stands."""
        ...

    async def prove(
        self, snapshot_id: SnapshotId, on_progress: Callable[[ProofProgress], None]
    ) -> Proof:
        """Prove the tree of a snapshot; raises `SnapshotNotFound`, `TreeDiffers`."""
        ...


def add_care(app: web.Application, care: Care, pace: Pace | None = None) -> None:
    """Add the routes to the application of the control socket."""

    async def scrub(_request: web.Request) -> web.Response:
        """`GET /v1/scrub`: how the scrub stands."""
        return web.json_response((await care.scrub_view()).to_json())

    async def verify(request: web.Request) -> web.StreamResponse:
        """`POST /v1/snapshots/{id}/verify`: prove a tree now; the answer is a stream.

        One JSON line now and then with `"state": "running"`; the last one has `"state": "done"` and
        the `proof`, or `"state": "failed"` and the `error`. Closing the connection ends the proof.
        """
        snapshot_id = parse_snapshot_id(request.match_info["id"])
        return await _Stream(care, snapshot_id, pace or Pace()).run(request)

    app.router.add_get("/v1/scrub", scrub, allow_head=False)
    app.router.add_post("/v1/snapshots/{id}/verify", verify)


class _Stream:
    """One proof and its reader, who is told at intervals and only the latest."""

    def __init__(self, care: Care, snapshot_id: SnapshotId, pace: Pace) -> None:
        self._care = care
        self._snapshot_id = snapshot_id
        self._pace = pace
        self._latest = ProofProgress()
        self._ended: dict[str, Any] | None = None

    async def run(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._speak, response, tasks.cancel_scope)
                await self._prove()
                tasks.cancel_scope.cancel()
            if self._ended is None:
                raise ConnectionResetError("nobody reads")
            await self._write(response, self._ended)
            await response.write_eof()
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _prove(self) -> None:
        try:
            proof = await self._care.prove(self._snapshot_id, self._take)
            self._ended = {"state": "done", "proof": proof.to_json()}
        except SnapsyncError as error:
            self._ended = {"state": "failed", "error": error.to_json()}
        except Exception as defect:
            logger.exception("the proof of %s met a defect", self._snapshot_id)
            told = InternalError(f"the proof met a defect in snapd: {type(defect).__name__}")
            self._ended = {"state": "failed", "error": told.to_json()}

    def _take(self, progress: ProofProgress) -> None:
        """Keep the latest; called in a worker thread."""
        self._latest = progress

    async def _speak(self, response: web.StreamResponse, everything: anyio.CancelScope) -> None:
        """Tell how far it is; a reader that is gone or stuck ends the proof."""
        try:
            while True:
                await self._write(response, self._latest.to_json())
                await anyio.sleep(self._pace.interval_seconds)
        except (TimeoutError, ConnectionError):
            everything.cancel()

    async def _write(self, response: web.StreamResponse, line: dict[str, Any]) -> None:
        with anyio.fail_after(self._pace.patience_seconds):
            await response.write(json.dumps(line).encode() + b"\n")
