"""Every operation of the API: its route, who may ask for it, what it takes and answers.

The table is what roles are checked by and what the OpenAPI document is made of, so that neither can
differ from the other; a test compares it with the routes that are served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from snapd.model.access import Role
from snapd.model.care import Proof, ScrubView
from snapd.model.checks import Check
from snapd.model.follow_views import FollowView
from snapd.model.follows import HOOK_WORD_MAX_CHARACTERS, HOOK_WORDS_MAX
from snapd.model.jobs import JobView, SnapshotView
from snapd.model.leases import REASON_MAX_CHARACTERS, Lease
from snapd.model.overview import Overview
from snapd.model.references import Resolved
from snapd.model.space import PlanView, SweepReport

ID_PATTERN = "^[0-9a-fA-F]{64}$"
_ID = {"type": "string", "pattern": ID_PATTERN}
_STORE = {
    "type": "string",
    "pattern": r"^((s3|gs)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./+=-]*)?|file://(/[\w+=-]+)+)$",
    "description": "Has to be allowed by `[daemon] stores`.",
    "examples": ["s3://datasets/imagenet"],
}
_REFERENCE = {
    "type": "string",
    "maxLength": 40,
    "pattern": r"^((model|dataset):)?[a-z][a-z0-9_]*@(v\d\.\d\.\d|[a-z]+)$",
    "examples": ["imagenet@v1.2.0"],
}
_PULL: dict[str, Any] = {
    "id": _ID,
    "store": _STORE,
    "priority": {"type": "string", "enum": ["blocking", "prefetch"]},
    "wait_for_space": {"type": "boolean"},
    "detach": {"type": "boolean"},
}


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries: a JSON object with these keys and no others."""

    properties: Mapping[str, Any]
    required: tuple[str, ...] = ()
    one_of: tuple[Mapping[str, Any], ...] = ()
    """Which values go together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a success is answered with: a document, or a stream with one a line."""

    schema: Any
    """A dataclass, or a mapping that is a schema, in which a dataclass stands for its own."""
    status: int = 200
    stream: bool = False
    text: str = ""
    """The media type, if it is not JSON."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one route."""

    method: str
    path: str
    role: Role
    """What the control socket asks for; on TCP there is nothing but reading."""
    summary: str
    answers: tuple[Answer, ...]
    body: Body | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    served: tuple[Literal["socket", "tcp"], ...] = ("socket",)
    free: bool = False
    """Answered over TCP without a token, too."""


def _listed(name: str, kind: type) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": kind}},
        "required": [name],
    }


_STATUS = {
    "type": "object",
    "properties": {
        "version": {"type": "string"},
        "pid": {"type": "integer"},
        "state": {"type": "string"},
        "role": {"type": "string", "enum": [role.word for role in Role]},
        "state_directory": {"type": "string"},
        "trees_directory": {"type": "string"},
        "uptime_seconds": {"type": "number"},
        "stores": {"type": "array", "items": {"type": "string"}},
        "listen": {"type": "string"},
        "cache_bytes": {"type": "integer"},
        "disk_free_bytes": {"type": "integer"},
    },
    "required": ["version", "pid", "state", "role", "state_directory", "stores"],
}
_PROOF_LINE = {
    "type": "object",
    "properties": {
        "state": {"type": "string", "enum": ["running", "done", "failed"]},
        "proof": Proof,
        "error": {"$ref": "#/components/schemas/Error"},
    },
    "required": ["state"],
}
_RECEIPT = {"type": "object", "required": ["schema", "id", "store", "verified", "cached"]}
_JOB_STREAM = Answer(JobView, stream=True)
_TEXT = Answer({"type": "string"}, text="text/plain")

_GET, _POST, _DELETE = "GET", "POST", "DELETE"
_LOOK, _PULLER, _CHIEF = Role.READ, Role.PULL, Role.ADMINISTER
_BOTH: tuple[Literal["socket", "tcp"], ...] = ("socket", "tcp")
_TCP: tuple[Literal["socket", "tcp"], ...] = ("tcp",)

OPERATIONS: tuple[Operation, ...] = (
    Operation(_GET, "/v1/status", _LOOK, "How the daemon and its cache are.", (Answer(_STATUS),)),
    Operation(
        _GET,
        "/v1/overview",
        _LOOK,
        "What the node holds and does now, as the page shows it.",
        (Answer(Overview),),
        served=_BOTH,
    ),
    Operation(
        _GET,
        "/v1/openapi.json",
        _LOOK,
        "This document.",
        (Answer({"type": "object", "required": ["openapi", "paths"]}),),
        served=_BOTH,
    ),
    Operation(
        _POST,
        "/v1/pulls",
        _PULLER,
        "Start or join a pull. Without `detach` the connection is the waiter and is told how the "
        "job stands until that ends; closing it leaves. With `detach` the job goes on by itself.",
        (_JOB_STREAM, Answer(JobView, status=202)),
        body=Body(_PULL, ("id", "store")),
    ),
    Operation(
        _GET,
        "/v1/jobs",
        _LOOK,
        "Running, waiting and remembered pulls.",
        (Answer(_listed("jobs", JobView)),),
    ),
    Operation(_GET, "/v1/jobs/{id}", _LOOK, "One pull as it stands.", (Answer(JobView),)),
    Operation(
        _DELETE,
        "/v1/jobs/{id}",
        _PULLER,
        "End a pull for all who wait; one that another user asked for, too, takes `administer`.",
        (Answer(JobView),),
    ),
    Operation(
        _GET,
        "/v1/jobs/{id}/events",
        _LOOK,
        "Follow a pull until it ends; this keeps nothing alive.",
        (_JOB_STREAM,),
    ),
    Operation(
        _GET,
        "/v1/snapshots",
        _LOOK,
        "The complete snapshots of the cache, the last used first.",
        (Answer(_listed("snapshots", SnapshotView)),),
    ),
    Operation(
        _DELETE,
        "/v1/snapshots/{id}",
        _CHIEF,
        "Evict a snapshot that nobody holds.",
        (Answer(SweepReport),),
        query={"given_out_too": {"type": "string", "enum": ["0", "1"]}},
    ),
    Operation(
        _GET,
        "/v1/snapshots/{id}/receipt",
        _LOOK,
        "What the pull of a snapshot proved.",
        (Answer(_RECEIPT),),
    ),
    Operation(
        _GET,
        "/v1/snapshots/{id}/manifest",
        _LOOK,
        "The manifest of a complete snapshot.",
        (Answer({"type": "string"}, text="application/octet-stream"),),
    ),
    Operation(
        _POST,
        "/v1/snapshots/{id}/verify",
        _PULLER,
        "Prove a tree now, and repair it; closing the connection ends that.",
        (Answer(_PROOF_LINE, stream=True),),
    ),
    Operation(_GET, "/v1/scrub", _LOOK, "How the scrub stands.", (Answer(ScrubView),)),
    Operation(
        _GET,
        "/v1/doctor",
        _LOOK,
        "Stores, credentials, clock, disk and limits, looked at now.",
        (Answer(_listed("checks", Check)),),
    ),
    Operation(
        _POST,
        "/v1/plan",
        _PULLER,
        "What a pull would fetch and evict now; changes nothing.",
        (Answer(PlanView),),
        body=Body(_PULL, ("id", "store")),
    ),
    Operation(
        _POST,
        "/v1/resolve",
        _PULLER,
        "Where a reference leads now: `NAME@VERSION`, or a model's `NAME@STAGE` or `NAME@ALIAS`.",
        (Answer(Resolved),),
        body=Body(
            {
                "reference": _REFERENCE,
                "store": _STORE,
            },
            ("reference", "store"),
        ),
    ),
    Operation(
        _GET,
        "/v1/follows",
        _LOOK,
        "What this node keeps live, and how that stands.",
        (Answer(_listed("follows", FollowView)),),
    ),
    Operation(
        _POST,
        "/v1/follows",
        _PULLER,
        "Keep a reference live at a directory that exists and that the caller may write to: "
        "`current` in it leads to the tree. A hook takes the daemon's own user, or root. "
        "With `wait` the reference need not lead anywhere yet.",
        (Answer(FollowView, status=201),),
        body=Body(
            {
                "reference": _REFERENCE,
                "dest": {
                    "type": "string",
                    "maxLength": 1024,
                    "pattern": r"^(/[a-z0-9_+=-]+){2,9}$",
                    "examples": ["/srv/models/iris_clf"],
                },
                "store": _STORE,
                "poll_seconds": {"type": "number", "minimum": 1, "maximum": 86400},
                "keep_previous": {"type": "integer", "minimum": 0, "maximum": 10},
                "hook": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": HOOK_WORD_MAX_CHARACTERS},
                    "maxItems": HOOK_WORDS_MAX,
                },
                "hook_timeout_seconds": {"type": "number", "minimum": 1, "maximum": 86400},
                "wait": {"type": "boolean"},
            },
            ("reference", "dest"),
        ),
    ),
    Operation(
        _DELETE,
        "/v1/follows/{id}",
        _PULLER,
        "End a follow: one's own, or with `administer` anybody's. The link stays, and holds its "
        "tree; one of the configuration ends with that.",
        (Answer(FollowView),),
    ),
    Operation(
        _POST,
        "/v1/sweep",
        _LOOK,
        "Make space, which takes `administer`, or with `dryrun` tell what that would take.",
        (Answer(SweepReport),),
        body=Body(
            {
                "dryrun": {"type": "boolean"},
                "why": {"type": "boolean"},
                "free_bytes": {"type": "integer", "minimum": 0},
            }
        ),
    ),
    Operation(
        _GET,
        "/v1/leases",
        _LOOK,
        "Who holds which snapshot now.",
        (Answer(_listed("leases", Lease)),),
    ),
    Operation(
        _POST,
        "/v1/leases",
        _PULLER,
        "Hold a snapshot. `process`: the one that asks, as the kernel names it. `link`: `subject` "
        "is its path. `pod`: `subject` is its UID. `pin`: until it is removed.",
        (Answer(Lease, status=201),),
        body=Body(
            {
                "id": _ID,
                "kind": {"type": "string", "enum": ["process", "link", "pod", "pin"]},
                "subject": {"type": "string", "maxLength": 4096},
                "reason": {
                    "type": "string",
                    "maxLength": REASON_MAX_CHARACTERS,
                    "pattern": "^[ -~]*$",
                },
            },
            ("id", "kind"),
            one_of=(
                {"properties": {"kind": {"enum": ["process", "pin"]}, "subject": {"const": ""}}},
                {
                    "properties": {
                        "kind": {"const": "link"},
                        "subject": {"type": "string", "pattern": "^/[ -~]*$"},
                    },
                    "required": ["subject"],
                },
                {
                    "properties": {
                        "kind": {"const": "pod"},
                        "subject": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                    },
                    "required": ["subject"],
                },
            ),
        ),
    ),
    Operation(
        _DELETE,
        "/v1/leases/{id}",
        _PULLER,
        "End a lease before its time: one's own, or with `administer` anybody's.",
        (Answer(Lease),),
    ),
    Operation(
        _GET,
        "/livez",
        _LOOK,
        "200 as long as the process answers.",
        (_TEXT,),
        served=_TCP,
        free=True,
    ),
    Operation(
        _GET,
        "/readyz",
        _LOOK,
        "200 when pulls are accepted, 503 with a word why not otherwise.",
        (_TEXT, Answer({"type": "string"}, status=503, text="text/plain")),
        served=_TCP,
        free=True,
    ),
    Operation(_GET, "/metrics", _LOOK, "Metrics for Prometheus.", (_TEXT,), served=_TCP),
    Operation(
        _GET,
        "/",
        _LOOK,
        "The page.",
        (Answer({"type": "string"}, text="text/html"),),
        served=_TCP,
    ),
    Operation(
        _GET,
        "/assets/{name}",
        _LOOK,
        "What the page is made of.",
        (Answer({"type": "string"}, text="text/css"),),
        served=_TCP,
    ),
)

ROLES: Mapping[tuple[str, str], Role] = MappingProxyType(
    {(each.method, each.path): each.role for each in OPERATIONS if "socket" in each.served}
)
"""What an operation of the control socket takes, by method and route."""
FREE_PATHS: frozenset[str] = frozenset(each.path for each in OPERATIONS if each.free)
"""Paths that answer over TCP without a token."""
