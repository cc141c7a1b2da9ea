"""TCP addresses as text: how they are written, and which of them only this host can reach."""

from __future__ import annotations

import ipaddress

from snapd.model.errors import InvalidConfig


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:9477` -> ("127.0.0.1", 9477); `[::1]:0` and `:9477` (every address) work too.

    Raises `InvalidConfig` naming the text.
    """
    host, separator, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host != bare
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidConfig(f"not an address to listen at: {text!r}", hint="Write 127.0.0.1:9477.")
    if (":" in bare) != bracketed:
        raise InvalidConfig(f"not an address to listen at: {text!r}", hint="Write [::1]:9477.")
    return bare, int(port)


def is_loopback(listen: str) -> bool:
    """Tell whether only this host can reach `host:port`; a name other than localhost may be any."""
    host, _ = parse_listen(listen)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_plain_host(header: str) -> bool:
    """Tell whether a `Host` header names an address or localhost, and no name that DNS could bend.

    A page of somebody else's, opened in a browser on this host, can make its own name point to
    127.0.0.1 and then read what answers there; its requests carry that name.
    """
    host = header.rpartition(":")[0] if _ends_with_port(header) else header
    bare = host.removeprefix("[").removesuffix("]")
    if bare == "localhost":
        return True
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def _ends_with_port(header: str) -> bool:
    host, separator, port = header.rpartition(":")
    return bool(separator) and port.isdecimal() and (":" not in host or host.endswith("]"))
