"""What the caller of a request may do is found out before anything else is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from snapd.api.peers import peer_of
from snapd.model.access import Access, Peer, Role
from snapd.model.errors import RoleMissing, StoreNotAllowed
from snapd.model.uris import parse_store_uri


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of callers; a reload makes new ones."""

    access: Access
    stores: tuple[str, ...] = ()
    """The allow-list of stores."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may do."""

    peer: Peer
    role: Role
    rules: Rules

    def require(self, role: Role, what: str) -> None:
        """Raise `RoleMissing` if the caller may not do `what`, as in "evict snapshots"."""
        if self.role < role:
            raise RoleMissing(
                f"user {self.peer.uid} may not {what}: that takes the role {role.word!r}",
                has=self.role.word,
                needs=role.word,
            )

    @property
    def administers(self) -> bool:
        """Tell whether the caller may do everything."""
        return self.role is Role.ADMINISTER

    def check_store(self, text: str) -> None:
        """Raise `StoreNotAllowed` for a directory that only the caller has named.

        `*` allows every bucket. A directory is a path, and the daemon sees more of the disk than
        its callers: it opens one only if the configuration, or an administrator, names it.
        """
        uri = parse_store_uri(text)
        if uri.scheme != "file" or self.administers:
            return
        named = (parse_store_uri(each) for each in self.rules.stores if each != "*")
        if not any(each.covers(uri) for each in named):
            raise StoreNotAllowed(
                f"this daemon may not read {uri} for you",
                hint="Directories have to be named in `[daemon] stores`; '*' does not cover them.",
                store=str(uri),
            )


CALLER = web.RequestKey("caller", Caller)


def only_who_may(rules: Callable[[], Rules], needed: Mapping[tuple[str, str], Role]) -> Middleware:
    """Make the middleware that finds out who asks and refuses who may not.

    `needed` names the role of each operation by method and route. An operation that it does not
    name takes an administrator; a request that is none (no such route) takes a reader.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        now = rules()
        peer = peer_of(request.get_extra_info("socket"))
        caller = Caller(peer, now.access.role_of(peer), now)
        caller.require(_role_for(request, needed), f"{request.method} {request.path}")
        request[CALLER] = caller
        return await handler(request)

    return check


def _role_for(request: web.Request, needed: Mapping[tuple[str, str], Role]) -> Role:
    route = request.match_info.route.resource
    if route is None:
        return Role.READ
    return needed.get((request.method, route.canonical), Role.ADMINISTER)
