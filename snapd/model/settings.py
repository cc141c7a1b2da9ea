"""What can be configured, with defaults; each part of the program receives only its own section.

`config.example.toml` names every key; `snapd.model.config` reads a document into these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`[[store]]`: how to reach a store and everything below its URI. Empty: the AWS chain."""

    uri: str
    endpoint_url: str = ""
    region: str = ""
    profile: str = ""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    ca_file: str = ""
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """`[transfer]`: bounds and patience of moving bytes."""

    objects_in_flight: int = 512
    """At most so many objects (or ranges of large ones) are asked for at the same time."""
    objects_in_flight_start: int = 64
    """So many at first, or half to four times of it, by the latency of the first answer; from
    there the number follows what the store and the node can do."""
    connections_max: int = 1024
    """Connections of the node, over all stores."""
    bytes_per_second: int = 0
    """What the node reads from stores, over all jobs. 0: as fast as it goes."""
    requests_per_second: float = 0.0
    """Requests for objects, over all jobs and stores. 0: as many as it takes."""
    bytes_in_flight: int = 96 * MIB
    """Bytes of those, which is what bounds memory."""
    batch_objects: int = 64
    """Small objects that travel as one batch."""
    batch_bytes: int = 8 * MIB
    large_object_bytes: int = 16 * MIB
    """From this size on an object is read in parallel ranges and written in parts."""
    range_bytes: int = 8 * MIB
    transfer_threads: int | Literal["auto"] = "auto"
    """Threads for large objects, documents and uploads; `auto`: 2, on many processors up to 12."""
    workers: int | Literal["auto"] = "auto"
    """Processes for small objects; `auto`: one a processor, at most 8, none on a single one."""
    connect_timeout_seconds: float = 10.0
    stall_timeout_seconds: float = 30.0
    """A transfer without a byte for this long is given up and asked for again."""
    attempts_max: int = 6
    """Tries of one request, the first included."""
    backoff_base_seconds: float = 0.25
    backoff_max_seconds: float = 20.0
    deadline_seconds: float = 600.0
    """Retries of one batch end after this time even if attempts are left."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """`[cache]`: the state directory. Empty `directory` means the default of the user."""

    directory: str = ""
    fsync: Literal["batch", "off"] = "batch"
    seal: Literal["auto", "off", "require"] = "auto"
    """Whether objects are sealed with fs-verity where that can be had."""
    quarantine_max_bytes: int = 1024 * MIB
    """The oldest quarantined bytes are removed beyond this."""
    max_bytes: int = 0
    """What the cache may take on disk, all of it, in allocated blocks. 0: no quota."""
    min_free_bytes: int = 1024 * MIB
    """What stays free on the cache's file system, whoever fills it."""
    high_watermark: float = 0.9
    """Above this fraction of the quota the cache is swept ..."""
    low_watermark: float = 0.8
    """... down to this one."""
    lease_seconds: float = 3600.0
    """How long a snapshot stays after its tree's path was given out; each pull renews it."""
    kubelet_directory: str = "/var/lib/kubelet"
    """Where this node's kubelet keeps a directory for each pod; pod leases look there."""
    node_name: str = ""
    """What receipts call this node; empty: its host name. A pod's is not its node's."""
    sweep_interval_seconds: float = 600.0
    orphan_seconds: float = 86400.0
    """Objects that no snapshot holds are kept this long, for a pull that resumes."""


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    """`[scrub]`: how the objects of the cache are hashed again in the background."""

    bytes_per_second: int = 20 * MIB
    """0: not at all."""
    interval_seconds: float = 7 * 86400.0
    """From the beginning of a round to that of the next."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """`[daemon]`: sockets, limits of admission, patience at the end."""

    socket: str = ""
    """Path of the control socket; empty means the default of the user."""
    socket_mode: int = 0o660
    socket_group: str = ""
    listen: str = "127.0.0.1:9477"
    """Address of health, metrics and the page; empty turns them off."""
    listen_token_file: str = ""
    """File with the token that metrics and page ask for; needed at any address but loopback."""
    stores: tuple[str, ...] = ()
    """Stores that may be read; a URI covers what lies below it. Empty refuses, `*` allows all."""
    pulls_running_max: int = 4
    pulls_queued_max: int = 256
    jobs_remembered: int = 200
    """Ended jobs kept for `snapctl jobs`."""
    grace_seconds: float = 30.0
    """How long running pulls may go on after SIGTERM."""


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """`[access]`: who may do what over the socket, of those who may open it."""

    read: tuple[str, ...] = ("*",)
    """`*`, `owner`, `root`, `user:NAME` or `group:NAME`; a number is a name, too."""
    pull: tuple[str, ...] = ("*",)
    administer: tuple[str, ...] = ("owner", "root")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`[log]`: where lines go is the supervisor's business; this is their shape."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """`[tracing]`: where traces of pulls are sent; needs the extra `snapsync[otel]`."""

    endpoint_url: str = ""
    """An OpenTelemetry collector that speaks OTLP over HTTP; empty: no traces."""


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """`[[follow]]`: a reference that this node keeps live at a directory of its own."""

    ref: str
    dest: str
    """`current` in this directory leads to the tree of the snapshot."""
    store: str = ""
    """Whose registry has the reference; empty: the only one of `[daemon] stores`."""
    poll_seconds: float = 10.0
    keep_previous: int = 1
    """So many former snapshots stay in the cache, for a rollback without a download."""
    hook: tuple[str, ...] = ()
    """A program and its arguments, run as the daemon's user after each switch."""
    hook_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    scrub: ScrubSettings = field(default_factory=ScrubSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    log: LogSettings = field(default_factory=LogSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    stores: tuple[StoreSettings, ...] = ()
    follows: tuple[FollowSettings, ...] = ()
