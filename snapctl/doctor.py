"""What can be found out about this node without a daemon, and how to reach it."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snapctl.client import Client
from snapctl.context import Context
from snapd import __version__
from snapd.model.checks import Check, failure, judge_disk, judge_open_files, ok, warning
from snapd.model.errors import (
    AccessDenied,
    CacheUnusable,
    DaemonNotRunning,
    InvalidConfig,
    SnapsyncError,
)
from snapd.model.places import default_places
from snapd.model.settings import Settings

ANSWER_MAX_SECONDS = 30.0
_CLIENT_OPEN_FILES_MIN = 256
_UNIT = "snapsync.service"


def examine(context: Context, cache_dir: str | None) -> list[Check]:
    """Look at the socket, the daemon and the cache; never raises what a check can say."""
    settings, checks = _configured(context)
    client = context.client().with_patience(ANSWER_MAX_SECONDS)
    checks.extend(_socket(client))
    try:
        status = client.status()
    except SnapsyncError as error:
        checks.append(_absent(error))
        checks.extend(_without_daemon(context, settings, cache_dir))
        return checks
    checks.extend(_present(status))
    checks.extend(_role(status))
    try:
        checks.extend(Check.from_json(check) for check in client.doctor()["checks"])
    except SnapsyncError as error:
        checks.append(failure("daemon's own checks", error))
    checks.append(_trees(status))
    return checks


def _configured(context: Context) -> tuple[Settings, list[Check]]:
    try:
        settings = context.settings()
    except InvalidConfig as error:
        return Settings(), [failure("configuration", error)]
    return settings, [ok("client", f"snapctl {__version__}, user {os.getuid()}")]


def _socket(client: Client) -> Iterator[Check]:
    path = client.socket_path
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        told = AccessDenied(f"can't look at the socket {path}: {error.strerror}")
        yield failure("socket", told)
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield failure("socket", CacheUnusable(f"{path} is not a socket", hint="Remove it."))
        return
    mode = stat.S_IMODE(found.st_mode)
    message = f"{path}, mode {mode:04o}, user {found.st_uid}, group {_group(found.st_gid)}"
    if mode & stat.S_IWOTH:
        hint = "Everybody on this node may ask for pulls: set `[daemon] socket_mode` to 0o660."
        yield warning("socket", message, hint, path=path, mode=mode)
    else:
        yield ok("socket", message, path=path, mode=mode)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _absent(error: SnapsyncError) -> Check:
    if not isinstance(error, DaemonNotRunning) or not shutil.which("systemctl"):
        return failure("daemon", error)
    hint = f"systemctl start {_UNIT}; if it does not stay up: journalctl -u {_UNIT} -n 50"
    told = DaemonNotRunning(error.message, hint=hint)
    return failure("daemon", told)


def _present(status: dict[str, Any]) -> Iterator[Check]:
    version, state = status["version"], status["state"]
    message = f"snapd {version}, pid {status['pid']}, {state}"
    if state != "ready":
        hint = "It takes no new pulls; callers wait for the next one."
        yield warning("daemon", message, hint, state=state)
    else:
        yield ok("daemon", message, state=state)
    if version != __version__:
        hint = f"Restart it (systemctl restart {_UNIT}): running pulls are taken up again."
        said = f"snapctl is {__version__} and the daemon {version}"
        yield warning("version", said, hint, client=__version__, daemon=version)


def _role(status: dict[str, Any]) -> Iterator[Check]:
    """Tell what this user may do; a daemon before roles says nothing about it."""
    role = status.get("role", "")
    if role == "read":
        hint = "Whoever administers the node says who may: `[access] pull`."
        yield warning("role", "this user may look, but not pull", hint, role=role)
    elif role:
        also = ", evict and end what others hold" if role == "administer" else ""
        yield ok("role", f"this user may pull{also}", role=role)


def _trees(status: dict[str, Any]) -> Check:
    """Tell whether this user sees the trees; a container may have them at another path."""
    trees = Path(status["trees_directory"])
    if os.access(trees, os.R_OK | os.X_OK):
        return ok("trees", f"{trees} can be read by this user")
    hint = "Mount it read-only here, and set SNAPSYNC_TREES if it lies at another path."
    return warning("trees", f"{trees} can't be read by this user", hint, path=str(trees))


def _without_daemon(context: Context, settings: Settings, cache_dir: str | None) -> Iterator[Check]:
    """Look from here at what a daemon would need."""
    places = default_places(context.environment, uid=os.getuid())
    directory = Path(cache_dir or settings.cache.directory or places.cache_dir).absolute()
    yield from _state(directory)
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    found = os.statvfs(there)
    yield from judge_disk(
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        min_free_bytes=settings.cache.min_free_bytes,
        inodes_free=found.f_favail,
        inodes=found.f_files,
    )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield judge_open_files(hard, name="open files here")


def _state(directory: Path) -> Iterator[Check]:
    from snapd.disk.layout import LAYOUT_VERSION, read_version

    name = "state directory"
    try:
        version = read_version(directory)
    except OSError as error:
        yield failure(name, AccessDenied(f"can't look at {directory}: {error.strerror}"))
        return
    if version is None:
        yield ok(name, f"{directory} is not there yet; the daemon makes it")
    elif version > LAYOUT_VERSION:
        newer = f"{directory} has the layout version {version}; this program knows {LAYOUT_VERSION}"
        hint = "Use the newer snapsync that wrote it, or another cache directory."
        yield failure(name, CacheUnusable(newer, hint=hint))
    else:
        yield ok(name, f"{directory}, layout version {version}", version=version)
