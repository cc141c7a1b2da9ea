"""Put what a run made into the store: a directory as it is, a file as a directory of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snapctl.catalog import Catalog, PushRecord
from snapctl.context import Context
from snapctl.stores import with_store
from snapctl.walking import late_meter
from snapd.actions.push import PushOptions, PushProgress, push
from snapd.disk.stat_cache import default_directory
from snapd.disk.walk import WalkOptions
from snapd.model.errors import ActionFailed, UsageError
from snapd.model.ids import SnapshotId
from snapd.remote.base import RemoteStore


def push_output(context: Context, store: str, path: str, by: str) -> SnapshotId:
    """Push a directory, or a file in a directory of its own, and give the ID.

    The push is recorded as any other. Raises `UsageError` for a path that is not there.
    """
    with as_directory(Path(path)) as source:
        options = PushOptions(
            walk=WalkOptions(stat_cache_dir=default_directory(context.environment)),
            transfer=context.settings().transfer,
        )
        record = PushRecord.of(
            Catalog.chosen(context, None),
            store,
            by,
            named_parent=None,
            source=(options.pushed_directory, source),
        )
        with late_meter(context, f"push {path}") as show:

            def on_progress(progress: PushProgress) -> None:
                total = progress.bytes_total or progress.walk.files_total
                show(progress.step, progress.bytes_done or progress.walk.files_hashed, total)

            async def run(opened: RemoteStore) -> SnapshotId:
                report = await push(opened, source, options, on_progress)
                await record.write(context, opened, report.snapshot_id)
                return report.snapshot_id

            return with_store(context, store, run)


@contextmanager
def as_directory(path: Path) -> Iterator[Path]:
    """Give the directory that an output becomes: itself or, of a file, one that holds it alone."""
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise UsageError(
            f"the output {str(path)!r} is not there", hint="Paths are those of the command."
        )
    try:
        made = Path(tempfile.mkdtemp(prefix=".snapsync-output-", dir=path.parent))
    except OSError as error:
        raise ActionFailed(f"can't stage the output {str(path)!r}: {error.strerror}") from error
    try:
        made.chmod(0o755)
        try:
            os.link(path.resolve(), made / path.name)
        except OSError:
            shutil.copy2(path, made / path.name)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
