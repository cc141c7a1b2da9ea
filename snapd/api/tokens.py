"""Who may read over TCP: with a token whoever has it, without one whoever is on this host."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import stat
from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from snapd.model.addresses import is_plain_host
from snapd.model.errors import InvalidConfig, NotAllowed

logger = logging.getLogger(__name__)

LENGTH_MIN = 16
_FILE_MAX_BYTES = 4096


class Token:
    """A secret, kept as its digest so that neither a log nor a crash report can show it."""

    def __init__(self, text: str) -> None:
        self._digest = hashlib.sha256(text.encode()).digest()

    def matches(self, given: str) -> bool:
        """Compare in a time that tells nothing."""
        raw = given.encode("utf-8", "surrogateescape")
        return hmac.compare_digest(hashlib.sha256(raw).digest(), self._digest)


def read_token(path: str) -> Token | None:
    """Read a token from the first line of a file; None if there is no path.

    Raises `InvalidConfig` if the file can't be read or its token could be guessed.
    """
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(_FILE_MAX_BYTES).decode("ascii")
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise InvalidConfig(
            f"[daemon] listen_token_file: can't read {path}: {error.strerror}",
            hint="Make it readable for the daemon's user, and for nobody else.",
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"[daemon] listen_token_file: {path} is not ASCII") from error
    token = (text.splitlines() or [""])[0].strip()
    if len(token) < LENGTH_MIN:
        raise InvalidConfig(
            f"[daemon] listen_token_file: {path} begins with a line of {len(token)} characters",
            hint=f"A token has at least {LENGTH_MIN}: head -c 24 /dev/urandom | base64",
        )
    if mode & stat.S_IROTH:
        logger.warning("everybody on this host may read the token", extra={"path": path})
    return Token(token)


def only_who_has(token: Callable[[], Token | None], *, free: Collection[str]) -> Middleware:
    """Make the middleware that asks for the token; the paths in `free` are open to all.

    As long as there is no token the address is loopback (`check_whole` sees to it), and a request
    has to name it as such: else a foreign page in a browser on this host could read it under a name
    of its own.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in free:
            return await handler(request)
        expected = token()
        if expected is None:
            if not is_plain_host(request.host):
                raise NotAllowed(
                    "without a token this is served only under its address",
                    hint="Open http://127.0.0.1:PORT/ or http://localhost:PORT/.",
                )
        elif not expected.matches(_given(request.headers.get("Authorization", ""))):
            raise web.HTTPUnauthorized(
                headers={"WWW-Authenticate": 'Basic realm="snapd", charset="UTF-8"'}
            )
        return await handler(request)

    return check


def _given(authorization: str) -> str:
    """Take the token out of `Bearer TOKEN`, or out of `Basic` as the password of any user."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode()
    except ValueError:  # not ASCII, not base64, not UTF-8
        return ""
    return text.partition(":")[2]
