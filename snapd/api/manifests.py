"""`GET /v1/snapshots/{id}/manifest`: the manifest of a snapshot, for who sees only its tree."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from anyio import to_thread

from snapd.model.errors import SnapshotNotFound
from snapd.model.ids import parse_snapshot_id


def add_manifests(app: web.Application, state_directory: Path) -> None:
    """Let an application answer with the manifests of the snapshots that are complete."""

    async def manifest(request: web.Request) -> web.StreamResponse:
        snapshot_id = parse_snapshot_id(request.match_info["id"])
        path = state_directory / "manifests" / snapshot_id
        tree = state_directory / "trees" / snapshot_id
        if not await to_thread.run_sync(lambda: tree.is_dir() and path.is_file()):
            raise SnapshotNotFound(
                f"the cache has no snapshot {snapshot_id}",
                hint="Pull it first: snapctl pull --id ID --store URI.",
                id=snapshot_id,
            )
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    app.router.add_get("/v1/snapshots/{id}/manifest", manifest, allow_head=False)
