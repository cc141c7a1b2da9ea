"""A model of an MLflow registry or run as the source of a version: taken as it is, and pushed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from snapctl.catalog import Catalog, PushRecord
from snapctl.context import Context
from snapctl.stores import with_store
from snapctl.walking import describe_walk, late_meter
from snapd.actions.publish import check_model_version
from snapd.actions.push import PushOptions, PushProgress, PushReport, push
from snapd.model.errors import ActionFailed, Interrupted, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.mlflow_values import fit_metrics, fit_parameters, run_id_in
from snapd.model.names import NOTE_MAX_CHARACTERS
from snapd.model.units import format_size
from snapd.model.versions import Version
from snapd.registry.names import Registry
from snapd.remote.base import RemoteStore

_SCHEMES = ("models:/", "runs:/")
_MESSAGE_MAX_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class TakenModel:
    """What became of a model of MLflow: a snapshot, and what its run said."""

    snapshot_id: SnapshotId
    metrics: Mapping[str, float]
    parameters: Mapping[str, str | float | bool]
    note: str
    """Where it is from, for a version that nobody gave a note."""


def take_from_mlflow(
    context: Context, uri: str, store: str, version: tuple[str, Version], by: str
) -> TakenModel:
    """Download a model by MLflow, push it into the store, and tell what its run measured.

    Raises `VersionExists` before anything is downloaded, `ActionFailed` with what MLflow says, or
    if it is not installed in the environment of `snapctl`, and what a push raises.
    """
    if not uri.startswith(_SCHEMES):
        raise UsageError(
            f"not a model of MLflow: {uri[:200]!r}",
            hint="--from takes models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN/PATH.",
        )

    async def check(opened: RemoteStore) -> None:
        await check_model_version(Registry(opened), *version)

    with_store(context, store, check)
    with TemporaryDirectory(prefix="snapsync-mlflow-") as scratch:
        with _quietened(context):
            directory, run_id, run = _download(uri, Path(scratch))
        snapshot_id = _push(context, directory, store, by)
    if run is None:
        context.output.note(f"{uri} tells no run: neither metrics nor parameters are taken over")
        return TakenModel(snapshot_id, {}, {}, _note(f"from {uri}"))
    metrics, left_metrics = fit_metrics(run.metrics)
    parameters, left_parameters = fit_parameters(run.params)
    if left := [*left_metrics, *left_parameters]:
        context.output.note(f"not taken over: {', '.join(left[:10])} ({len(left)} values)")
    return TakenModel(snapshot_id, metrics, parameters, _note(f"from {uri}, run {run_id}"))


def _download(uri: str, into: Path) -> tuple[Path, str, Any]:
    """Give the directory, and the ID and the data of the run, which is None if there is none."""
    try:
        import mlflow
    except ImportError as error:
        raise ActionFailed(
            f"{uri} needs MLflow, which can't be loaded here: {error}",
            hint="Install mlflow-skinny beside snapctl, or download the model yourself and push it:"
            " snapctl push DIRECTORY --model NAME@VERSION.",
        ) from error
    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
        client = mlflow.MlflowClient()
        run_id = run_id_in(uri) or _run_of_version(client, uri)
        run = client.get_run(run_id).data if run_id else None
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise ActionFailed(
            f"MLflow can't give {uri}: {_first_line(error)}",
            hint="Look at the name, and at MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI.",
        ) from error
    return found if found.is_dir() else found.parent, run_id, run


def _run_of_version(client: Any, uri: str) -> str:
    """Ask the registry for the run of `models:/NAME/VERSION` or `models:/NAME@ALIAS`."""
    named = uri.removeprefix("models:/")
    name, at, alias = named.partition("@")
    if at:
        found = client.get_model_version_by_alias(name, alias)
    else:
        name, _, version = named.rstrip("/").partition("/")
        if not version.isdecimal():
            versions = client.search_model_versions(f"name='{name}'") if version else []
            if version != "latest":
                versions = [
                    each for each in versions if str(each.current_stage).lower() == version.lower()
                ]
            version = str(max((int(each.version) for each in versions), default=0))
        found = client.get_model_version(name, version) if version != "0" else None
    return str(getattr(found, "run_id", None) or "")


def _push(context: Context, directory: Path, store: str, by: str) -> SnapshotId:
    options = PushOptions(transfer=context.settings().transfer)
    catalog = Catalog.chosen(context, None)
    record = PushRecord.of(catalog, store, by, named_parent=None, source=(None, directory))

    async def run(opened: RemoteStore) -> PushReport:
        report = await push(opened, source=directory, options=options, on_progress=on_progress)
        await record.write(context, opened, report.snapshot_id)
        return report

    try:
        with late_meter(context, f"push {directory.name}") as show:

            def on_progress(now: PushProgress) -> None:
                done = f"uploaded {format_size(now.bytes_done)}"
                walking = now.step == "walking"
                text = describe_walk(now.walk) if walking else done
                show(text, now.bytes_done, now.bytes_total)

            return with_store(context, store, run).snapshot_id
    except KeyboardInterrupt:
        raise Interrupted("interrupted: no version was added") from None


@contextmanager
def _quietened(context: Context) -> Iterator[None]:
    """Keep what MLflow prints off stdout, which is for the result."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        if context.quiet:
            stack.enter_context(redirect_stderr(StringIO()))
        yield


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:_MESSAGE_MAX_CHARACTERS] if lines else type(error).__name__


def _note(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:NOTE_MAX_CHARACTERS]
