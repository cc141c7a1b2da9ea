"""Look at a store as a doctor does: can it be reached, as whom, and does its clock agree."""

from __future__ import annotations

import email.utils
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from anyio import to_thread

from snapd.model.errors import AccessDenied, SnapsyncError, StoreMissing
from snapd.model.settings import StoreSettings, TransferSettings
from snapd.model.uris import StoreUri
from snapd.remote.lanes import Lanes

_NO_SUCH_KEY = ".manifests/none"


class Examination(NamedTuple):
    """What was found. `error` is what a pull would meet; the rest is known as far as it got.

    `skew_seconds` says how far this node's clock is ahead of the store's.
    """

    error: SnapsyncError | None = None
    endpoint: str = ""
    identity: str = ""
    expires_at: float | None = None
    skew_seconds: float | None = None


async def examine(
    uri: StoreUri,
    settings: StoreSettings,
    transfer: TransferSettings,
    lanes: Lanes,
    *,
    now: Callable[[], float],
) -> Examination:
    """Ask a store once or twice, without retries; nothing is read or written in it."""
    if uri.scheme == "file":
        return await to_thread.run_sync(_examine_directory, uri)
    return await _examine_bucket(uri, settings, transfer, lanes, now)


def _examine_directory(uri: StoreUri) -> Examination:
    path = Path(uri.path)
    try:
        with os.scandir(path):
            pass
    except (FileNotFoundError, NotADirectoryError):
        return Examination(StoreMissing(f"{uri}: there is no such directory"), str(path))
    except OSError as error:
        return Examination(AccessDenied(f"{uri}: can't be read: {error.strerror}"), str(path))
    return Examination(endpoint=str(path))


async def _examine_bucket(
    uri: StoreUri,
    settings: StoreSettings,
    transfer: TransferSettings,
    lanes: Lanes,
    now: Callable[[], float],
) -> Examination:
    # Late: libcurl takes longer to load than most commands run.
    from snapd.remote.credentials import Account
    from snapd.remote.exchanges import Request
    from snapd.remote.opening import make_ready
    from snapd.remote.s3_wire import BUCKET_TARGET, S3Wire
    from snapd.remote.transport import open_transport

    await make_ready()
    account = Account(uri, settings)
    try:
        origin = await account.origin()
    except SnapsyncError as error:
        return Examination(error)
    async with open_transport(transfer, lanes) as transport:
        wire = S3Wire(uri, account, transport)
        reply = await wire.ask_one(Request("GET", f"{BUCKET_TARGET}?list-type=2&max-keys=0"))
        asked_at = now()
        refusal = None if reply.ok else wire.error(reply, None)
        if reply.status == 403:
            # Whoever may not list may still read: a key that is not there says so.
            prefix = f"/{uri.path}" if uri.path else ""
            read = await wire.ask_one(Request("GET", f"{prefix}/{_NO_SUCH_KEY}"))
            refusal = None if read.status == 404 else refusal
    return Examination(
        refusal,
        origin.base_url,
        account.identity,
        account.expires_at,
        _skew(reply.header("date"), asked_at),
    )


def _skew(date: str, at: float) -> float | None:
    try:
        return at - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
