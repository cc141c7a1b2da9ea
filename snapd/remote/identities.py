"""Who signs, and what is said around this process of the place: in plain variables or elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from snapd.model.settings import StoreSettings
from snapd.model.uris import StoreUri


class Keys(NamedTuple):
    """What signs; all of them empty: requests are not signed."""

    access_key: str = ""
    secret_key: str = ""
    token: str = ""


class Identity(Protocol):
    """What was found around this process; whatever it does not say is empty."""

    @property
    def region(self) -> str:
        """The region that is named there."""
        ...

    @property
    def endpoint(self) -> str:
        """The endpoint that is named there for stores of S3."""
        ...

    @property
    def ca_file(self) -> str:
        """The certificates that are to be trusted."""
        ...

    @property
    def method(self) -> str:
        """How the keys were found."""
        ...

    @property
    def role(self) -> str:
        """The role that was taken on."""
        ...

    @property
    def expires_at(self) -> float | None:
        """When the keys expire; None: never, or nobody knows."""
        ...

    async def keys(self) -> Keys:
        """Give the keys to use now, refreshed if they are about to expire."""
        ...

    def aws_endpoint(self, region: str) -> str:
        """Tell where AWS itself is in a region."""
        ...


@dataclass(frozen=True, slots=True)
class PlainIdentity:
    """Keys and place as a few variables say them."""

    signing: Keys
    region: str
    endpoint: str
    ca_file: str
    method: str = "env"
    role: str = ""
    expires_at: float | None = None

    async def keys(self) -> Keys:
        """Give the keys, which never change."""
        return self.signing

    def aws_endpoint(self, region: str) -> str:
        """Is not asked: a plain identity is one that has an endpoint."""
        raise AssertionError(f"no endpoint for {region}")


_UNDERSTOOD = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_CA_BUNDLE",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
)
_FILES = ("~/.aws/config", "~/.aws/credentials")


def plain_identity(uri: StoreUri, settings: StoreSettings) -> PlainIdentity | None:
    """Tell who signs if that is as plain as can be, else None: then the chain must be asked.

    The chain takes the variables' keys before anything else, too, but loading it takes a third of a
    second. So no more is understood here than keys, region, endpoint and trust: any other variable
    of AWS, an empty one, a file of its configuration or a profile is the chain's business.
    """
    variables = os.environ.items()  # noqa: TID251 - the chain reads them itself, too
    found = {name: value for name, value in variables if name.startswith("AWS_")}
    endpoint = found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL") or ""
    placed = bool(settings.endpoint_url or endpoint) or uri.scheme == "gs"
    if settings.profile or not placed or not all(found.values()) or found.keys() - _UNDERSTOOD:
        return None
    if any(os.path.lexists(os.path.expanduser(path)) for path in _FILES):
        return None
    signing = Keys(
        found.get("AWS_ACCESS_KEY_ID", ""),
        found.get("AWS_SECRET_ACCESS_KEY", ""),
        found.get("AWS_SESSION_TOKEN", ""),
    )
    if not settings.anonymous and not (signing.access_key and signing.secret_key):
        return None
    return PlainIdentity(
        signing,
        region=found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION") or "",
        endpoint=endpoint,
        ca_file=found.get("AWS_CA_BUNDLE", ""),
    )
