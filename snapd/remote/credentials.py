"""Who asks, where, and how a bucket is addressed: AWS's own rules, as botocore keeps them.

Credentials come from botocore's chain: environment, profile, SSO, web identity, container and
instance roles, a process. They are refreshed before they expire, and once more on demand.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
from aiobotocore.session import AioSession
from anyio import to_thread
from botocore.exceptions import (
    BotoCoreError,
    CredentialRetrievalError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.httpsession import get_cert_path

from snapd.model.errors import CredentialsExpired, CredentialsMissing, InvalidConfig, SnapsyncError
from snapd.model.settings import StoreSettings
from snapd.model.uris import StoreUri
from snapd.remote.exchanges import Origin
from snapd.runtime.background import background_tasks

logger = logging.getLogger(__name__)

GOOGLE_ENDPOINT = "https://storage.googleapis.com"
GOOGLE_REGION = "auto"
DEFAULT_REGION = "us-east-1"
"""Signs for stores that name no region; AWS answers with the right one, which is then used."""
SYSTEM_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
CHAIN = "environment, profile, SSO, web identity, container role, instance role"
LOOK_SECONDS = 60.0
"""How often credentials are looked at while nothing is asked; botocore refreshes in the last 15
minutes of their life."""
_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

# What botocore's chain is asked for: name in a profile, variables, default, conversion.
_SESSION_VARIABLES = {
    "region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None),
    "s3_endpoint_variable": (None, ["AWS_ENDPOINT_URL_S3"], None, None),
    "endpoint_variable": (None, ["AWS_ENDPOINT_URL"], None, None),
    "role_arn_variable": (None, ["AWS_ROLE_ARN"], None, None),
}


class Account:
    """The identity and the address of one store; `origin` gives what signs the next requests."""

    def __init__(self, uri: StoreUri, settings: StoreSettings) -> None:
        self._uri = uri
        self._settings = settings
        self._region = ""
        self._origin: Origin | None = None
        self._session: AioSession | None = None
        self._credentials: Any = None
        self._refreshing = anyio.Lock()

    async def origin(self) -> Origin:
        """Give the place and the credentials to use now, refreshed if they are about to expire.

        The same object is given again as long as nothing changed. Raises `CredentialsMissing` when
        the chain finds none and `CredentialsExpired` when what it found can't be refreshed.
        """
        if self._credentials is None and not self._settings.anonymous:
            async with self._refreshing:
                if self._credentials is None:
                    await self._load()
        keys = await self._frozen()
        if self._origin is None or keys != _keys_of(self._origin):
            self._origin = await to_thread.run_sync(self._resolve, keys)
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
        key = str(getattr(self._credentials, "access_key", "") or "")
        method = str(getattr(self._credentials, "method", "") or "unknown source")
        shown = f"{key[:4]}…{key[-4:]}" if len(key) > 8 else "…"
        role = ""
        if self._session is not None:
            scoped = self._session.get_scoped_config().get("role_arn")
            role = self._session.get_config_variable("role_arn_variable") or scoped or ""
        as_role = f", role {role}" if role and "role" in method else ""
        profile = f", profile {self._settings.profile}" if self._settings.profile else ""
        return f"{shown} ({method}{as_role}{profile})"

    @property
    def expires_at(self) -> float | None:
        """Tell when the credentials in use expire; None: never, or nobody knows."""
        expiry = getattr(self._credentials, "_expiry_time", None)
        return None if expiry is None else float(expiry.timestamp())

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

    async def _load(self) -> None:
        try:
            session = await to_thread.run_sync(self._new_session)
            self._credentials = await session.get_credentials()
            self._session = session
        except (BotoCoreError, OSError, ValueError) as exc:
            raise self._explained(exc) from exc
        if self._credentials is None:
            raise CredentialsMissing(
                f"{self._uri}: no credentials found (looked at: {CHAIN}{self._profile_note()})"
            )

    async def _frozen(self) -> tuple[str, str, str]:
        if self._settings.anonymous:
            return ("", "", "")
        try:
            frozen = await self._credentials.get_frozen_credentials()
        # A refresh that fails also raises what JSON, processes and HTTP clients raise.
        except Exception as exc:
            raise self._explained(exc) from exc
        return (frozen.access_key, frozen.secret_key, frozen.token or "")

    def _explained(self, exc: Exception) -> SnapsyncError:
        if isinstance(exc, ProfileNotFound):
            return CredentialsMissing(
                f"{self._uri}: {exc}", hint="Check `profile` in the configuration or AWS_PROFILE."
            )
        if isinstance(exc, (SSOError, TokenRetrievalError, RuntimeError)):
            return CredentialsExpired(f"{self._uri}: credentials can't be refreshed: {exc}")
        if isinstance(exc, CredentialRetrievalError):
            return CredentialsMissing(f"{self._uri}: credentials can't be retrieved: {exc}")
        return CredentialsMissing(f"{self._uri}: no usable credentials: {exc}")

    def _profile_note(self) -> str:
        return f"; profile {self._settings.profile!r}" if self._settings.profile else ""

    def _new_session(self) -> AioSession:
        session = AioSession(
            session_vars=dict(_SESSION_VARIABLES), profile=self._settings.profile or None
        )
        session.get_scoped_config()
        return session

    def _resolve(self, keys: tuple[str, str, str]) -> Origin:
        """Work out region, endpoint, addressing and trust; reads files, so not on the loop."""
        try:
            session = self._session or self._new_session()
            region = self._choose_region(session)
            endpoint = self._configured_endpoint(session)
            custom = bool(endpoint)
            endpoint = endpoint or _aws_endpoint(session, region)
            ca_file = self._settings.ca_file or session.get_config_variable("ca_bundle")
        except BotoCoreError as exc:
            raise self._explained(exc) from exc
        access_key, secret_key, token = keys
        return Origin(
            base_url=self._bucket_url(endpoint, custom=custom),
            region=region,
            access_key=access_key,
            secret_key=secret_key,
            token=token,
            ca_file=_checked_ca_file(ca_file) if endpoint.startswith("https:") else "",
        )

    def _choose_region(self, session: AioSession) -> str:
        if self._region or self._settings.region:
            return self._region or self._settings.region
        if self._uri.scheme == "gs":
            return GOOGLE_REGION
        return session.get_config_variable("region") or DEFAULT_REGION

    def _configured_endpoint(self, session: AioSession) -> str:
        if self._settings.endpoint_url:
            return self._checked_endpoint(self._settings.endpoint_url)
        if self._uri.scheme == "gs":
            return GOOGLE_ENDPOINT
        if session.get_config_variable("ignore_configured_endpoint_urls"):
            return ""
        found = (
            session.get_config_variable("s3_endpoint_variable")
            or session.get_config_variable("endpoint_variable")
            or _service_endpoint(session)
            or session.get_scoped_config().get("endpoint_url")
        )
        return self._checked_endpoint(found) if found else ""

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


def _keys_of(origin: Origin) -> tuple[str, str, str]:
    return (origin.access_key, origin.secret_key, origin.token)


def _service_endpoint(session: AioSession) -> str:
    """Read `s3 = endpoint_url` of the `services` section that the profile names."""
    section = session.get_scoped_config().get("services")
    services = session.full_config.get("services", {}).get(section, {})
    service = services.get("s3", {}) if isinstance(services, dict) else {}
    return str(service.get("endpoint_url", "")) if isinstance(service, dict) else ""


def _aws_endpoint(session: AioSession, region: str) -> str:
    host = "s3-fips" if session.get_config_variable("use_fips_endpoint") else "s3"
    if session.get_config_variable("use_dualstack_endpoint"):
        host += ".dualstack"
    return f"https://{host}.{region}.{_domain(session, region)}"


def _domain(session: AioSession, region: str) -> str:
    """Look up the domain of the partition (commercial, China, isolated) that a region is in."""
    for partition in session.get_data("partitions")["partitions"]:
        if region in partition["regions"] or re.match(partition["regionRegex"], region):
            return str(partition["outputs"]["dnsSuffix"])
    return "amazonaws.com"


def _checked_ca_file(configured: str | None) -> str:
    """Choose what libcurl trusts, since its wheel brings no certificates of its own."""
    if configured:
        if not os.access(configured, os.R_OK):
            raise InvalidConfig(f"the CA bundle can't be read: {configured!r}")
        return configured
    known = (ssl.get_default_verify_paths().cafile, *SYSTEM_CA_FILES)
    found = next((path for path in known if path and os.access(path, os.R_OK)), None)
    return found or str(get_cert_path(True))
