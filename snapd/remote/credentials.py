"""Who asks, where, and how a bucket is addressed: AWS's own rules, as botocore keeps them.

Credentials come from plain variables or from botocore's chain. They are refreshed before they
expire, and once more on demand.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import anyio
from anyio import to_thread

from snapd.model.errors import InvalidConfig, SnapsyncError
from snapd.model.settings import StoreSettings
from snapd.model.uris import StoreUri
from snapd.remote.exchanges import Origin
from snapd.remote.identities import Identity, Keys, plain_identity
from snapd.runtime.background import background_tasks

logger = logging.getLogger(__name__)

GOOGLE_ENDPOINT = "https://storage.googleapis.com"
GOOGLE_REGION = "auto"
DEFAULT_REGION = "us-east-1"
"""Signs for stores that name no region; AWS answers with the right one, which is then used."""
SYSTEM_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
LOOK_SECONDS = 60.0
"""How often credentials are looked at while nothing is asked; botocore refreshes in the last 15
minutes of their life."""
_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


class Account:
    """The identity and the address of one store; `origin` gives what signs the next requests."""

    def __init__(self, uri: StoreUri, settings: StoreSettings) -> None:
        self._uri = uri
        self._settings = settings
        self._region = ""
        self._signs_bodies = False
        self._sends_digests = False
        self._origin: Origin | None = None
        self._identity: Identity | None = None
        self._keys = Keys()
        self._refreshing = anyio.Lock()

    async def origin(self) -> Origin:
        """Give the place and the credentials to use now, refreshed if they are about to expire.

        The same object is given again as long as nothing changed. Raises `CredentialsMissing` when
        the chain finds none and `CredentialsExpired` when what it found can't be refreshed.
        """
        identity = self._identity
        if identity is None:
            async with self._refreshing:
                identity = self._identity or await self._load()
        self._keys = Keys() if self._settings.anonymous else await identity.keys()
        if self._origin is None or self._keys != _keys_of(self._origin):
            self._origin = await to_thread.run_sync(self._resolve, identity, self._keys)
        return self._origin

    async def renewed(self, used: Origin) -> Origin:
        """Give a newer origin than `used`, whose token the store called expired.

        The chain is walked afresh, so that keys replaced in a file are found as well.
        """
        async with self._refreshing:
            if self._origin is used:
                self._origin = None
                if not self._settings.anonymous:
                    await self._load()
        return await self.origin()

    @property
    def identity(self) -> str:
        """Say who signs and where that came from, as in `AKIA…7XQ2 (env)`; no secret is in it."""
        if self._settings.anonymous:
            return "anonymous"
        key = self._keys.access_key
        method = "unknown source" if self._identity is None else self._identity.method
        shown = f"{key[:4]}…{key[-4:]}" if len(key) > 8 else "…"
        role = "" if self._identity is None else self._identity.role
        as_role = f", role {role}" if role and "role" in method else ""
        profile = f", profile {self._settings.profile}" if self._settings.profile else ""
        return f"{shown} ({method}{as_role}{profile})"

    @property
    def expires_at(self) -> float | None:
        """Tell when the credentials in use expire; None: never, or nobody knows."""
        return None if self._identity is None else self._identity.expires_at

    @asynccontextmanager
    async def kept_fresh(self, tell: Callable[[float | None], None]) -> AsyncIterator[None]:
        """Refresh in time for the length of the block, also while nothing is asked.

        `tell` is told again and again when the credentials expire, and None at the end. So an
        expiry that comes near means that refreshing fails.
        """
        try:
            async with background_tasks() as tasks:
                tasks.start_soon(self._keep_fresh, tell)
                yield
        finally:
            tell(None)

    async def _keep_fresh(self, tell: Callable[[float | None], None]) -> None:
        while True:
            try:
                await self.origin()
            except SnapsyncError as error:
                logger.warning("credentials are not fresh: %s", error.message)
            tell(self.expires_at)
            await anyio.sleep(LOOK_SECONDS)

    def move_to(self, region: str) -> None:
        """Use another region from now on, because the store said that the bucket lives there."""
        self._region = region
        self._origin = None

    def sign_bodies(self) -> None:
        """Have uploads hashed for their signature from now on, also where TLS proves them."""
        self._signs_bodies = True
        self._origin = None

    def send_digests(self) -> None:
        """Have uploads say their MD5 from now on."""
        self._sends_digests = True
        self._origin = None

    async def _load(self) -> Identity:
        plain = await to_thread.run_sync(plain_identity, self._uri, self._settings)
        self._identity = plain or await self._from_chain()
        return self._identity

    async def _from_chain(self) -> Identity:
        await to_thread.run_sync(load_chain)
        from snapd.remote.aws_chain import ChainIdentity

        return await ChainIdentity.find(self._uri, self._settings)

    def _resolve(self, identity: Identity, keys: Keys) -> Origin:
        """Work out region, endpoint, addressing and trust; reads files, so not on the loop."""
        google = self._uri.scheme == "gs"
        region = self._region or self._settings.region
        if not region:
            region = GOOGLE_REGION if google else identity.region or DEFAULT_REGION
        endpoint = self._settings.endpoint_url
        if not endpoint:
            endpoint = GOOGLE_ENDPOINT if google else identity.endpoint
        custom = bool(endpoint)
        endpoint = self._checked_endpoint(endpoint) if custom else identity.aws_endpoint(region)
        ca_file = self._settings.ca_file or identity.ca_file
        return Origin(
            base_url=self._bucket_url(endpoint, custom=custom),
            region=region,
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            token=keys.token,
            ca_file=_checked_ca_file(ca_file) if endpoint.startswith("https:") else "",
            signs_bodies=self._signs_bodies,
            sends_digests=self._sends_digests,
        )

    def _checked_endpoint(self, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidConfig(f"{self._uri}: not an endpoint URL: {url!r}")
        return url.rstrip("/")

    def _bucket_url(self, endpoint: str, *, custom: bool) -> str:
        bucket = self._uri.bucket
        virtual = self._settings.addressing == "virtual" or (
            self._settings.addressing == "auto"
            and not custom
            and _HOST_LABEL.fullmatch(bucket) is not None
        )
        if not virtual:
            return f"{endpoint}/{quote(bucket, safe='')}"
        scheme, _, rest = endpoint.partition("://")
        return f"{scheme}://{bucket}.{rest}"


def load_chain() -> None:
    """Load what asks the chain, which takes a third of a second; blocking."""
    importlib.import_module("snapd.remote.aws_chain")


def _keys_of(origin: Origin) -> Keys:
    return Keys(origin.access_key, origin.secret_key, origin.token)


def _checked_ca_file(configured: str) -> str:
    """Choose what libcurl trusts, since its wheel brings no certificates of its own."""
    if configured:
        if not os.access(configured, os.R_OK):
            raise InvalidConfig(f"the CA bundle can't be read: {configured!r}")
        return configured
    known = (ssl.get_default_verify_paths().cafile, *SYSTEM_CA_FILES)
    found = next((path for path in known if path and os.access(path, os.R_OK)), None)
    if found:
        return found
    from botocore.httpsession import get_cert_path

    return str(get_cert_path(True))
