"""What a doctor can only find out inside the daemon: its credentials, its cache, its limits."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
from anyio import to_thread

from snapd import __version__
from snapd.disk.cache import Cache
from snapd.disk.features import kind_of, try_features
from snapd.model.checks import (
    REMOTE_FILE_SYSTEMS,
    Check,
    failure,
    judge_credentials,
    judge_disk,
    judge_open_files,
    judge_skew,
    ok,
    warning,
)
from snapd.model.errors import SnapsyncError, TimedOut
from snapd.model.settings import Settings
from snapd.model.uris import StoreUri, parse_store_uri
from snapd.remote.examining import Examination

STORE_SECONDS = 10.0
STORES_MAX = 32
"""Stores that one examination asks; a configuration with more is told so."""

ExamineStore = Callable[[StoreUri], Awaitable[Examination]]


async def diagnose(
    settings: Settings, cache: Cache, examine: ExamineStore, now: Callable[[], float]
) -> list[Check]:
    """Look at everything; takes at most a little longer than `STORE_SECONDS`, changes nothing."""
    stores, checks = stores_to_ask(settings)
    asked = stores[:STORES_MAX]
    found: dict[StoreUri, list[Check]] = {}

    async def ask(uri: StoreUri) -> None:
        found[uri] = await _store_checks(uri, examine, now)

    async with anyio.create_task_group() as tasks:
        for uri in asked:
            tasks.start_soon(ask, uri)
        here = await to_thread.run_sync(partial(_node_checks, settings, cache))
    if len(stores) > len(asked):
        hint = "Ask for the others one by one: snapctl plan --id ID --store URI."
        message = f"{len(stores) - len(asked)} more stores were not asked"
        checks.append(warning("stores", message, hint))
    return [*here, *checks, *(check for uri in asked for check in found[uri])]


def stores_to_ask(settings: Settings) -> tuple[list[StoreUri], list[Check]]:
    """List the stores that the configuration names, and say what is odd about the list."""
    allowed = settings.daemon.stores
    named = [text for text in allowed if text != "*"]
    if "*" in allowed:
        named = [section.uri for section in settings.stores]
    stores = list(dict.fromkeys(map(parse_store_uri, named)))
    if not allowed:
        hint = "Set `[daemon] stores`, then: systemctl reload snapsync."
        return [], [warning("stores", "no store is allowed: every pull is refused", hint)]
    if "*" in allowed:
        return stores, [ok("stores", "every store is allowed; asked are those with a section")]
    return stores, [ok("stores", f"{len(stores)} allowed")]


async def _store_checks(
    uri: StoreUri, examine: ExamineStore, now: Callable[[], float]
) -> list[Check]:
    name = f"store:{uri}"
    try:
        with anyio.fail_after(STORE_SECONDS):
            found = await examine(uri)
    except TimeoutError:
        return [failure(name, TimedOut(f"{uri} did not answer within {STORE_SECONDS:.0f} s"))]
    except SnapsyncError as error:
        return [failure(name, error)]
    checks = []
    if found.error is not None:
        checks.append(failure(name, found.error, endpoint=found.endpoint))
    else:
        checks.append(ok(name, f"reached at {found.endpoint}", endpoint=found.endpoint))
    if found.identity:
        who = judge_credentials(f"credentials:{uri}", found.identity, found.expires_at, now=now())
        checks.append(who)
    if found.skew_seconds is not None:
        checks.append(judge_skew(f"clock:{uri}", found.skew_seconds, found.endpoint))
    return checks


def _node_checks(settings: Settings, cache: Cache) -> Sequence[Check]:
    """Look at the daemon's own side. Blocking."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    versions = f"snapd {__version__}, Python {platform.python_version()}, {platform.release()}"
    details = {"snapd": __version__, "python": platform.python_version()}
    return [
        ok("versions", versions, **details, kernel=platform.release()),
        ok("user", f"the daemon runs as user {os.geteuid()}, group {os.getegid()}"),
        *_disk_checks(settings, cache),
        *_feature_checks(cache),
        _repair_check(cache),
        judge_open_files(limit),
    ]


def _disk_checks(settings: Settings, cache: Cache) -> list[Check]:
    try:
        found = os.statvfs(cache.root)
    except OSError as error:
        return [failure("disk", SnapsyncError(f"can't ask about {cache.root}: {error.strerror}"))]
    return judge_disk(
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        min_free_bytes=settings.cache.min_free_bytes,
        inodes_free=found.f_favail,
        inodes=found.f_files,
    )


def _feature_checks(cache: Cache) -> list[Check]:
    kind = kind_of(cache.root)
    if kind in REMOTE_FILE_SYSTEMS:
        hint = "Put the cache on a local disk: locks and durability are promised only there."
        checks = [warning("file system", f"{cache.root} is on {kind}, over the network", hint)]
    else:
        checks = [ok("file system", f"{cache.root} is on {kind or 'an unknown type'}", kind=kind)]
    try:
        features = try_features(cache.root / "staging")
    except (OSError, SnapsyncError) as error:
        told = SnapsyncError(f"can't write to the cache {cache.root}: {error}")
        return [*checks, failure("features", told)]
    lacking = []
    if not features.reflinks:
        lacking.append("reflinks (a private checkout copies its bytes)")
    if not features.unnamed_files:
        lacking.append("O_TMPFILE (objects are made under a name)")
    if features.unsealable:
        lacking.append(f"fs-verity ({features.unsealable})")
    elif not cache.seal.active:
        lacking.append(f"sealing ({cache.seal.reason})")
    having = "hard links work" if features.hard_links else "no hard links"
    message = f"{having}; without {', '.join(lacking)}" if lacking else f"{having}, all else too"
    details = features._asdict()
    if not features.hard_links:
        hint = "Put the cache on a local file system such as ext4, xfs or btrfs."
        return [*checks, Check("features", "failure", message, hint, 1, details)]
    return [*checks, ok("features", message, **details)]


def _repair_check(cache: Cache) -> Check:
    pending = cache.repairs.pending()
    if pending:
        hint = "The daemon tries again each minute; its log says what keeps it."
        message = f"{len(pending)} damaged objects wait to be fetched again"
        return warning("repairs", message, hint, pending=len(pending))
    return ok("repairs", "nothing waits for repair")
