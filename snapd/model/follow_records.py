"""What a node knows of each follow over restarts, and how that goes on from step to step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from snapd.model.access import Peer
from snapd.model.errors import UsageError
from snapd.model.follows import check_dest, check_hook
from snapd.model.ids import SnapshotId
from snapd.model.references import parse_reference
from snapd.model.releases import Release
from snapd.model.settings import FollowSettings


@dataclass(frozen=True, slots=True)
class FollowRecord:
    """What a node has to know of a follow over restarts.

    `coming` is written before the link is changed: who finds the link changed and `live` not, knows
    what happened. `asker` is who asked for it over the socket; None: the configuration did.
    """

    follow: FollowSettings
    asker: Peer | None = None
    live: Release | None = None
    coming: Release | None = None
    previous: tuple[Release, ...] = ()
    hook_due: bool = False
    """The hook has not ended since the last switch."""

    def to_json(self) -> dict[str, Any]:
        """Render for the disk."""
        document = asdict(self)
        if self.asker is not None:
            groups = sorted(self.asker.groups)
            document["asker"] = {"uid": self.asker.uid, "gid": self.asker.gid, "groups": groups}
        return document

    @classmethod
    def from_json(cls, document: object) -> FollowRecord:
        """Read what `to_json` wrote; keys of a newer version are ignored. Raises `UsageError`."""
        if not isinstance(document, dict):
            raise UsageError("a follow is a JSON object")
        try:
            live, coming = document.get("live"), document.get("coming")
            return cls(
                _follow_from(document["follow"]),
                _peer_from(document.get("asker")),
                None if live is None else Release.from_json(live),
                None if coming is None else Release.from_json(coming),
                tuple(Release.from_json(each) for each in document.get("previous", ())),
                bool(document.get("hook_due")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"not a follow: {error}") from error

    def held(self) -> tuple[SnapshotId, ...]:
        """Name the snapshots that may not be evicted, each once."""
        releases = (self.live, self.coming, *self.previous)
        return tuple(dict.fromkeys(each.snapshot_id for each in releases if each is not None))

    def heading_for(self, release: Release) -> FollowRecord:
        """Take note of what is to be live next."""
        return replace(self, coming=release)

    def switched(self, now: float) -> FollowRecord:
        """Take note that what was coming is live; what was live is the latest of the previous."""
        assert self.coming is not None
        live = replace(self.coming, since=now)
        before = (*(() if self.live is None else (self.live,)), *self.previous)
        others = [each for each in before if each.snapshot_id != live.snapshot_id]
        kept = tuple(others[: self.follow.keep_previous])
        hook_due = bool(self.follow.hook)
        return replace(self, live=live, coming=None, previous=kept, hook_due=hook_due)

    def told(self, live: Release) -> FollowRecord:
        """Take note that the hook was told of what is live, unless something else is by now."""
        return replace(self, hook_due=self.hook_due and self.live != live)

    def recovered(self, linked: SnapshotId | None, now: float) -> FollowRecord:
        """Agree with what the link says, which alone decides what is live.

        A daemon that died after the switch finds here what was coming; a link that somebody
        changed, or a record that got lost, gives a release of which only the snapshot is known.
        """
        if linked is None:
            return replace(self, live=None) if self.live is not None else self
        if self.live is not None and self.live.snapshot_id == linked:
            return self
        if self.coming is not None and self.coming.snapshot_id == linked:
            return self.switched(now)
        known = next((each for each in self.previous if each.snapshot_id == linked), None)
        return replace(self, coming=known or Release(linked)).switched(now)


def _follow_from(document: dict[str, Any]) -> FollowSettings:
    known = {key: document[key] for key in FollowSettings.__dataclass_fields__ if key in document}
    known["hook"] = check_hook(known.get("hook", ()))
    made = FollowSettings(**known)
    parse_reference(made.ref)
    return replace(made, dest=check_dest(made.dest))


def _peer_from(document: dict[str, Any] | None) -> Peer | None:
    if document is None:
        return None
    groups = frozenset(int(each) for each in document["groups"])
    return Peer(0, int(document["uid"]), int(document["gid"]), groups)
