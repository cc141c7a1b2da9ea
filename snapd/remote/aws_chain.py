"""Credentials and configuration as botocore finds them.

Its chain: environment, profile, SSO, web identity, container and instance roles, a process. It
refreshes what it found before that expires. Loading it takes a third of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiobotocore.session import AioSession
from anyio import to_thread
from botocore.exceptions import (
    BotoCoreError,
    CredentialRetrievalError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from snapd.model.errors import CredentialsExpired, CredentialsMissing, SnapsyncError
from snapd.model.settings import StoreSettings
from snapd.model.uris import StoreUri
from snapd.remote.identities import Keys

CHAIN = "environment, profile, SSO, web identity, container role, instance role"

# What botocore's chain is asked for: name in a profile, variables, default, conversion.
_SESSION_VARIABLES = {
    "region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None),
    "s3_endpoint_variable": (None, ["AWS_ENDPOINT_URL_S3"], None, None),
    "endpoint_variable": (None, ["AWS_ENDPOINT_URL"], None, None),
    "role_arn_variable": (None, ["AWS_ROLE_ARN"], None, None),
}


class ChainIdentity:
    """What the chain found for one store; made by `find`."""

    def __init__(self, uri: StoreUri, session: AioSession, credentials: Any) -> None:
        self._uri = uri
        self._session = session
        self._credentials = credentials

    @classmethod
    async def find(cls, uri: StoreUri, settings: StoreSettings) -> ChainIdentity:
        """Walk the chain, or for an anonymous store read only the configuration.

        Raises `CredentialsMissing` when it finds none, `CredentialsExpired` when what it found
        can't be refreshed.
        """
        try:
            session = await to_thread.run_sync(_new_session, settings.profile)
            credentials = None if settings.anonymous else await session.get_credentials()
        except (BotoCoreError, OSError, ValueError) as exc:
            raise _explained(uri, exc) from exc
        if credentials is None and not settings.anonymous:
            profile = f"; profile {settings.profile!r}" if settings.profile else ""
            raise CredentialsMissing(f"{uri}: no credentials found (looked at: {CHAIN}{profile})")
        return cls(uri, session, credentials)

    async def keys(self) -> Keys:
        """Give the keys to use now, refreshed if they are about to expire."""
        try:
            frozen = await self._credentials.get_frozen_credentials()
        # A refresh that fails also raises what JSON, processes and HTTP clients raise.
        except Exception as exc:
            raise _explained(self._uri, exc) from exc
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or "")

    @property
    def region(self) -> str:
        """The region of the variables or of the profile."""
        with self._explaining():
            return self._session.get_config_variable("region") or ""

    @property
    def endpoint(self) -> str:
        """The endpoint of the variables or of the profile, unless it is to be ignored."""
        session = self._session
        with self._explaining():
            if session.get_config_variable("ignore_configured_endpoint_urls"):
                return ""
            return (
                session.get_config_variable("s3_endpoint_variable")
                or session.get_config_variable("endpoint_variable")
                or _service_endpoint(session)
                or session.get_scoped_config().get("endpoint_url")
                or ""
            )

    @property
    def ca_file(self) -> str:
        """The bundle of the variables or of the profile."""
        with self._explaining():
            return self._session.get_config_variable("ca_bundle") or ""

    @property
    def method(self) -> str:
        """Which part of the chain found the keys, in botocore's words."""
        return str(getattr(self._credentials, "method", "") or "unknown source")

    @property
    def role(self) -> str:
        """The role of the variables or of the profile."""
        scoped = self._session.get_scoped_config().get("role_arn")
        return str(self._session.get_config_variable("role_arn_variable") or scoped or "")

    @property
    def expires_at(self) -> float | None:
        """When the keys expire; None: never, or nobody knows."""
        expiry = getattr(self._credentials, "_expiry_time", None)
        return None if expiry is None else float(expiry.timestamp())

    def aws_endpoint(self, region: str) -> str:
        """Tell where AWS itself is in a region."""
        session = self._session
        with self._explaining():
            host = "s3-fips" if session.get_config_variable("use_fips_endpoint") else "s3"
            if session.get_config_variable("use_dualstack_endpoint"):
                host += ".dualstack"
            return f"https://{host}.{region}.{_domain(session, region)}"

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except BotoCoreError as exc:
            raise _explained(self._uri, exc) from exc


def _new_session(profile: str) -> AioSession:
    session = AioSession(session_vars=dict(_SESSION_VARIABLES), profile=profile or None)
    session.get_scoped_config()
    return session


def _explained(uri: StoreUri, exc: Exception) -> SnapsyncError:
    if isinstance(exc, ProfileNotFound):
        return CredentialsMissing(
            f"{uri}: {exc}", hint="Check `profile` in the configuration or AWS_PROFILE."
        )
    if isinstance(exc, (SSOError, TokenRetrievalError, RuntimeError)):
        return CredentialsExpired(f"{uri}: credentials can't be refreshed: {exc}")
    if isinstance(exc, CredentialRetrievalError):
        return CredentialsMissing(f"{uri}: credentials can't be retrieved: {exc}")
    return CredentialsMissing(f"{uri}: no usable credentials: {exc}")


def _service_endpoint(session: AioSession) -> str:
    """Read `s3 = endpoint_url` of the `services` section that the profile names."""
    section = session.get_scoped_config().get("services")
    services = session.full_config.get("services", {}).get(section, {})
    service = services.get("s3", {}) if isinstance(services, dict) else {}
    return str(service.get("endpoint_url", "")) if isinstance(service, dict) else ""


def _domain(session: AioSession, region: str) -> str:
    """Look up the domain of the partition (commercial, China, isolated) that a region is in."""
    for partition in session.get_data("partitions")["partitions"]:
        if region in partition["regions"] or re.match(partition["regionRegex"], region):
            return str(partition["outputs"]["dnsSuffix"])
    return "amazonaws.com"
