"""What a daemon may be asked to follow: a reference, and a directory in which it is kept live.

In that directory, `dest`, `current` is a link to the tree of the snapshot to which the reference
leads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from snapd.model.errors import InvalidConfig, UsageError
from snapd.model.ids import digest_of
from snapd.model.references import parse_reference
from snapd.model.settings import FollowSettings, Settings
from snapd.model.uris import parse_store_uri

FOLLOWS_MAX = 64
"""So many follows a node has at most; each is a label in metrics and a lease or two."""
FOLLOWS_OF_A_USER_MAX = 16
POLL_SECONDS_MIN = 1.0
POLL_BACKOFF_MAX_SECONDS = 300.0
"""A store that can't be read, or a snapshot that can't be had, is tried again this seldom."""
JITTER = 0.2
"""Pauses differ by this fraction up and down, so that nodes do not ask all at once."""
KEEP_PREVIOUS_MAX = 10
HOOK_WORDS_MAX = 32
HOOK_WORD_MAX_CHARACTERS = 1024
DEST_MAX_CHARACTERS = 1024
LINK = "current"


def follow_id_of(dest: str) -> str:
    """Name the follow of a destination: 12 hexadecimal digits."""
    return digest_of(dest.encode("utf-8", "surrogateescape"))[:12]


def check_dest(dest: str) -> str:
    """Check a destination: absolute and plain, as `/srv/models/iris`. Raises `UsageError`."""
    shown = ascii(dest[:80])
    if len(dest) > DEST_MAX_CHARACTERS or not dest.isprintable():
        raise UsageError(f"a destination is a path of printable characters, not {shown}")
    if not dest.startswith("/") or dest.startswith("//"):
        raise UsageError(f"a destination is an absolute path, not {shown}")
    if ".." in dest.split("/") or PurePosixPath(dest) == PurePosixPath("/"):
        raise UsageError(f"a destination is a directory below /, without '..', not {shown}")
    return str(PurePosixPath(dest))


def check_hook(hook: Iterable[str]) -> tuple[str, ...]:
    """Check a hook: the absolute path of a program, and its arguments. Raises `UsageError`."""
    words = tuple(hook)
    if words and not words[0].startswith("/"):
        raise UsageError(
            f"a hook begins with the absolute path of a program, not with {words[0][:80]!r}",
            hint="Hooks are run without a shell: /usr/local/bin/reload-iris --graceful.",
        )
    too_long = any("\0" in word or len(word) > HOOK_WORD_MAX_CHARACTERS for word in words)
    if len(words) > HOOK_WORDS_MAX or too_long:
        raise UsageError(
            f"a hook has at most {HOOK_WORDS_MAX} words of {HOOK_WORD_MAX_CHARACTERS} characters",
            hint="Put what it does into a script.",
        )
    return words


def check_poll(seconds: float) -> float:
    """Check how often a reference is looked at; raises `UsageError`."""
    if not seconds >= POLL_SECONDS_MIN:
        raise UsageError(f"a reference is looked at every {POLL_SECONDS_MIN:g} s at most")
    return seconds


def check_follows(settings: Settings) -> Settings:
    """Give each follow its store, and refuse those that get in each other's way.

    Raises `InvalidConfig` naming the destination.
    """
    if len(settings.follows) > FOLLOWS_MAX:
        raise InvalidConfig(f"there are at most {FOLLOWS_MAX} [[follow]] tables")
    follows: list[FollowSettings] = []
    for follow in settings.follows:
        try:
            checked = complete(follow, settings.daemon.stores)
        except UsageError as error:
            raise InvalidConfig(
                f"[[follow]] {follow.dest}: {error.message}", key="store"
            ) from error
        if clash := clashing(checked.dest, (each.dest for each in follows)):
            raise InvalidConfig(
                f"[[follow]] {checked.dest} and {clash} are one in the other, or the same",
                hint="Every follow has a directory of its own.",
                key="dest",
            )
        follows.append(checked)
    return replace(settings, follows=tuple(follows))


def complete(follow: FollowSettings, stores: tuple[str, ...]) -> FollowSettings:
    """Write a follow out: spelling of path and store, and the one store there is if none is named.

    Raises `UsageError` if none is named and there is not exactly one.
    """
    store = follow.store
    if not store:
        if len(stores) != 1 or stores[0] == "*":
            raise UsageError(
                "no store is named, and the daemon does not have exactly one",
                hint="Name the store whose registry has the reference.",
            )
        store = stores[0]
    return replace(
        follow,
        ref=str(parse_reference(follow.ref)),
        dest=check_dest(follow.dest),
        store=str(parse_store_uri(store)),
    )


def clashing(dest: str, others: Iterable[str]) -> str:
    """Find the destination that is this one, or in it, or around it; empty if there is none."""
    path = PurePosixPath(dest)
    for other in others:
        place = PurePosixPath(other)
        if path == place or place in path.parents or path in place.parents:
            return other
    return ""


_REQUEST: dict[str, tuple[type, ...]] = {
    "reference": (str,),
    "dest": (str,),
    "store": (str,),
    "poll_seconds": (int, float),
    "keep_previous": (int,),
    "hook": (list,),
    "hook_timeout_seconds": (int, float),
    "wait": (bool,),
}


@dataclass(frozen=True, slots=True)
class FollowRequest:
    """Ask the daemon to follow. With `wait` the reference need not lead anywhere yet."""

    follow: FollowSettings
    wait: bool = False

    def to_json(self) -> dict[str, Any]:
        """Render as the body of `POST /v1/follows`."""
        document = asdict(self.follow)
        document["reference"] = document.pop("ref")
        document["hook"] = list(self.follow.hook)
        return document | {"wait": self.wait}

    @classmethod
    def from_json(cls, document: object) -> FollowRequest:
        """Read the body of `POST /v1/follows`; raises `UsageError` naming what is wrong."""
        if not isinstance(document, dict):
            raise UsageError("the body is not a JSON object")
        if unknown := sorted(str(key)[:80] for key in document if key not in _REQUEST):
            raise UsageError(f"unknown keys in the request: {', '.join(unknown)}")
        for key, value in document.items():
            if type(value) not in _REQUEST[key]:
                raise UsageError(f"{key!r} is not of the right kind: {str(value)[:80]!r}")
        if "reference" not in document or "dest" not in document:
            raise UsageError("the request needs 'reference' and 'dest', both texts")
        hook = document.get("hook", [])
        if not all(isinstance(word, str) for word in hook):
            raise UsageError("'hook' is a list of texts: a program and its arguments")
        usual = FollowSettings("", "")
        follow = FollowSettings(
            ref=str(parse_reference(document["reference"])),
            dest=check_dest(document["dest"]),
            store=str(parse_store_uri(document["store"])) if document.get("store") else "",
            poll_seconds=check_poll(float(document.get("poll_seconds", usual.poll_seconds))),
            keep_previous=document.get("keep_previous", usual.keep_previous),
            hook=check_hook(hook),
            hook_timeout_seconds=float(
                document.get("hook_timeout_seconds", usual.hook_timeout_seconds)
            ),
        )
        if not 0 <= follow.keep_previous <= KEEP_PREVIOUS_MAX:
            raise UsageError(f"'keep_previous' is a number from 0 to {KEEP_PREVIOUS_MAX}")
        if not 0 < follow.hook_timeout_seconds <= 86400 or follow.poll_seconds > 86400:
            raise UsageError("a time is more than 0 and at most a day")
        return cls(follow, document.get("wait", False))


def pause_seconds(every_seconds: float, failures: int, random: Callable[[], float]) -> float:
    """Choose the pause before the next try: doubled with each failure, bounded, with jitter."""
    grown = every_seconds * 2.0 ** min(failures, 30)
    bounded = min(grown, max(every_seconds, POLL_BACKOFF_MAX_SECONDS))
    return bounded * (1 - JITTER + 2 * JITTER * random())
