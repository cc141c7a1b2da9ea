"""Open a store in this process, with the caller's own credentials, for one action."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from snapctl.context import Context
from snapd.model.uris import parse_store_uri
from snapd.remote.base import RemoteStore
from snapd.remote.opening import open_store, settings_for
from snapd.runtime.observer import SilentObserver

Result = TypeVar("Result")


def with_store(
    context: Context, store: str, action: Callable[[RemoteStore], Awaitable[Result]]
) -> Result:
    """Run `action` on the store that the URI names, and close the store."""
    uri = parse_store_uri(store)
    settings = context.settings()

    async def run() -> Result:
        async with open_store(
            uri, settings_for(uri, settings.stores), settings.transfer, SilentObserver()
        ) as opened:
            return await action(opened)

    return anyio.run(run, backend_options={"use_uvloop": True})
