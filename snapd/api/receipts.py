"""`GET /v1/snapshots/{id}/receipt`: what the pull that brought a snapshot proved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from snapd.model.errors import SnapshotNotFound
from snapd.model.ids import SnapshotId, parse_snapshot_id
from snapd.model.receipts import Receipt

FindReceipt = Callable[[SnapshotId], Awaitable[Receipt | None]]


def add_receipts(app: web.Application, find: FindReceipt) -> None:
    """Let an application answer with the receipts that `find` finds."""

    async def receipt(request: web.Request) -> web.Response:
        snapshot_id = parse_snapshot_id(request.match_info["id"])
        found = await find(snapshot_id)
        if found is None:
            raise SnapshotNotFound(
                f"the cache has no snapshot {snapshot_id}",
                hint="Pull it first: snapctl pull --id ID --store URI.",
                id=snapshot_id,
            )
        return web.json_response(found.to_json())

    app.router.add_get("/v1/snapshots/{id}/receipt", receipt, allow_head=False)
