"""`snapctl run verify`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from snapctl.context import Context
from snapctl.file_hash import hash_of
from snapctl.frame import config_option, store_option, verb
from snapctl.recorded_runs import opened
from snapctl.registering import check_meter, with_registry
from snapctl.repositories import look_for_commit
from snapctl.surroundings import python_of
from snapd.actions.check_run import SnapshotChecks
from snapd.model.errors import Interrupted, RunDiffers
from snapd.model.names import parse_name
from snapd.model.run_checks import (
    AREAS,
    Check,
    CodeHere,
    RunChecks,
    check_code,
    check_environment,
    only,
    uses_of,
)
from snapd.model.run_parts import Environment
from snapd.model.runs import Run
from snapd.registry.names import Registry
from snapd.registry.runs import Runs


@verb(
    "verify",
    examples=[
        "snapctl run verify 20260301T090000Z-3f2a91c0 --store s3://models/prod",
        "snapctl run verify iris-7 --only data --only outputs --deep",
        "snapctl run verify iris-7 --repo ~/src/iris --lock uv.lock --json",
    ],
)
@click.argument("run_id", metavar="RUN")
@store_option()
@click.option("--deep", is_flag=True, help="Read and hash every object, not only look for it.")
@click.option(
    "--only", "areas", type=click.Choice(AREAS), multiple=True, help="Check only this. Repeatable."
)
@click.option(
    "--repo",
    metavar="PATH",
    type=click.Path(),
    help="The git repository of the code.  [default: that of the working directory]",
)
@click.option(
    "--python", metavar="PROGRAM", help="The interpreter.  [default: that of the run's command]"
)
@click.option(
    "--lock",
    metavar="FILE",
    type=click.Path(),
    help="The file that pins the packages.  [default: the recorded one, in the repository]",
)
@click.option(
    "--image", metavar="IMAGE", envvar="SNAPSYNC_IMAGE", help="The image.  [env: SNAPSYNC_IMAGE]"
)
@config_option
def verify(
    context: Context,
    run_id: str,
    store: str,
    deep: bool,
    areas: tuple[str, ...],
    repo: str | None,
    python: str | None,
    lock: str | None,
    image: str | None,
) -> None:
    """Check whether a recorded run could be done again: here, with what is in the store.

    Are its data and outputs whole in the store, is its commit in the repository and checked out,
    are interpreter, packages and image the same? One line a check; what could not be checked is
    said so. Exit 1 if anything differs.
    """
    parse_name(run_id)
    run, checks = _check_store(context, run_id, store, areas, deep=deep)
    here = CodeHere("not looked at")
    if run.code is not None and (not areas or {"code", "environment"} & set(areas)):
        here = look_for_commit(repo, run.code.commit, context.environment)
    if not areas or "code" in areas:
        checks += check_code(run.code, here)
    if not areas or "environment" in areas:
        top = Path(here.where) if here.has_commit is not None else Path.cwd()
        checks += check_environment(
            run.environment, *_surroundings(context, run, top, python, lock, image)
        )
    report = RunChecks(run.run_id, only(checks, areas))
    _print(context, report)


def _check_store(
    context: Context, run_id: str, store: str, areas: tuple[str, ...], *, deep: bool
) -> tuple[Run, list[Check]]:
    settings = context.settings()
    try:
        with check_meter(context, run_id) as on_progress:

            async def check(registry: Registry) -> tuple[Run, list[Check]]:
                run = await Runs(registry).run(run_id)
                uses = [each for each in uses_of(run) if not areas or each[0] in areas]
                checks = SnapshotChecks(settings.transfer, on_progress, deep=deep)
                found = await checks.run(registry.store, uses, lambda uri: opened(uri, settings))
                return run, found

            return with_registry(context, store, check)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: the rest was not checked") from None


def _surroundings(
    context: Context,
    run: Run,
    top: Path,
    python: str | None,
    lock: str | None,
    image: str | None,
) -> tuple[Environment, dict[str, str]]:
    """Tell what is here of what the run recorded, and why not of what is not."""
    why = {"image": "name this one with --image"}
    program = python or (run.command[0] if run.command else "python3")
    path = context.environment.get("PATH", os.defpath)
    version = None
    if python is None and "/" in program:
        # Whoever may write to the store would choose what is run here.
        why["python"] = f"{program} is run only if you name it, or another one, with --python"
    elif shutil.which(program, path=path) is not None:
        version = python_of(program, context.environment)
    else:
        why["python"] = f"there is no {program} here; name one with --python"
    recorded = run.environment.lock_file
    lock_file = Path(lock) if lock else top / recorded if recorded else None
    lock_hash = None
    if lock_file is not None and (lock or lock_file.is_file()):
        lock_hash = hash_of(lock_file)
    else:
        where = f"{lock_file} is not there" if lock_file else "the run does not say which"
        why["lock file"] = f"{where}; name one with --lock"
    system = os.uname()
    platform = f"{system.sysname}-{system.release}-{system.machine}"
    return Environment(version, None, lock_hash, image, platform), why


def _print(context: Context, report: RunChecks) -> None:
    if context.output.as_json:
        context.output.print_json(report.to_json())
    else:
        for each in report.checks:
            context.output.line(each.line())
    if report.count("differs"):
        raise RunDiffers(f"run {report.run_id}: {report.summary()}", run_id=report.run_id)
    context.output.note(f"run {report.run_id}: {report.summary()}")
