"""Look whether the data and the outputs of a recorded run are whole where they were recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from snapd.actions.certify import certify_snapshot
from snapd.actions.verify import OnProgress, VerifyReport, verify_snapshot
from snapd.model.errors import (
    DigestMismatch,
    ManifestRefused,
    SnapshotNotFound,
    SnapsyncError,
    StoreMissing,
)
from snapd.model.ids import SnapshotId
from snapd.model.run_checks import Area, Check, Status, subject_of
from snapd.model.run_parts import Use
from snapd.model.settings import TransferSettings
from snapd.model.units import format_size
from snapd.remote.base import RemoteStore

OpenStore = Callable[[str], AbstractAsyncContextManager[RemoteStore]]
_WRONG = (DigestMismatch, SnapshotNotFound, ManifestRefused, StoreMissing)


class SnapshotChecks:
    """Checks each snapshot once, however often a run names it; `deep` reads every byte."""

    def __init__(self, settings: TransferSettings, on_progress: OnProgress, *, deep: bool) -> None:
        self._settings = settings
        self._on_progress = on_progress
        self._deep = deep
        self._known: dict[tuple[str, SnapshotId], tuple[Status, str]] = {}

    async def run(
        self, home: RemoteStore, uses: Sequence[tuple[Area, Use]], open_other: OpenStore
    ) -> list[Check]:
        """Check snapshots in `home`, or in the store that each names, which `open_other` opens.

        What is missing or damaged differs; of a store that does not answer, or that the caller may
        not read, nothing was checked.
        """
        for store in dict.fromkeys(use.store for _, use in uses):
            wanted = [use.snapshot_id for _, use in uses if use.store == store]
            if store is None:
                await self._look(home, "", wanted)
                continue
            try:
                async with open_other(store) as other:
                    await self._look(other, store, wanted)
            except SnapsyncError as error:
                for snapshot_id in wanted:
                    self._known.setdefault((store, snapshot_id), _judged(error))
        return [
            Check(area, subject_of(area, use), *self._known[use.store or "", use.snapshot_id])
            for area, use in uses
        ]

    async def _look(self, store: RemoteStore, where: str, wanted: list[SnapshotId]) -> None:
        for snapshot_id in dict.fromkeys(wanted):
            try:
                report = await self._prove(store, snapshot_id)
            except SnapsyncError as error:
                self._known[where, snapshot_id] = _judged(error)
                continue
            how = "read and hashed" if self._deep else "all there, not read"
            size = format_size(report.size_bytes)
            self._known[where, snapshot_id] = ("ok", f"{report.files} objects, {size}, {how}")

    async def _prove(self, store: RemoteStore, snapshot_id: SnapshotId) -> VerifyReport:
        if self._deep:
            return await verify_snapshot(store, snapshot_id, self._settings, self._on_progress)
        return await certify_snapshot(store, snapshot_id, self._on_progress)


def _judged(error: SnapsyncError) -> tuple[Status, str]:
    return ("differs" if isinstance(error, _WRONG) else "not checked"), error.message
