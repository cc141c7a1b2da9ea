"""A client of the daemon's control socket, which loads little: short commands start with it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from snapctl.exchange import Answer, NotHttpError, exchange
from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    DaemonLost,
    DaemonNotRunning,
    SnapsyncError,
    Stalled,
    TimedOut,
    UsageError,
    error_from_json,
)

if TYPE_CHECKING:
    import socket

    from snapd.model.care import Proof, ProofProgress
    from snapd.model.follow_views import FollowView
    from snapd.model.follows import FollowRequest
    from snapd.model.jobs import JobView, PullRequest, SnapshotView
    from snapd.model.leases import Lease, LeaseRequest
    from snapd.model.overview import Overview
    from snapd.model.receipts import Receipt
    from snapd.model.references import Resolved
    from snapd.model.space import PlanView, SweepReport, SweepRequest

SILENCE_MAX_SECONDS = 30.0
"""The daemon sends a line every 5 seconds even if nothing changed."""
SWEEP_MAX_SECONDS = 3600.0
"""Plans, sweeps and evictions of a large cache take minutes."""
_CONNECT_SECONDS = 10
_SOCKET_PATH_MAX_BYTES = 107
_ERROR_BODY_MAX_BYTES = 64 * 1024


class Client:
    """One daemon, reached through the first of `socket_paths` that exists.

    Every call opens a connection of its own and closes it. Raises `DaemonNotRunning` naming the
    paths if nobody listens, `AccessDenied` if the caller may not open the socket, `Stalled` if the
    daemon says nothing for `silence_max_seconds`, and whatever error the daemon answers with.
    `trees` is where this process sees the daemon's trees, if that is not where the daemon has them;
    what is returned then names trees by it.
    """

    def __init__(
        self,
        socket_paths: Sequence[str],
        *,
        own_directory: str = "",
        uid: int = 0,
        silence_max_seconds: float = SILENCE_MAX_SECONDS,
        trees: str = "",
    ) -> None:
        self._socket_paths = socket_paths
        self._trees = trees
        self._own_directory = own_directory
        self._uid = uid
        self._silence_max_seconds = silence_max_seconds

    @property
    def socket_path(self) -> str:
        """The first socket that exists, or the last of the list if none does."""
        found = (path for path in self._socket_paths if os.path.lexists(path))
        return next(found, self._socket_paths[-1])

    def status(self) -> dict[str, Any]:
        """Ask how the daemon and its cache are."""
        return self._document("GET", "/v1/status")

    def overview(self) -> Overview:
        """Ask what the node holds and does now."""
        from snapd.model.overview import Overview

        return Overview.from_json(self._document("GET", "/v1/overview"))

    def doctor(self) -> dict[str, Any]:
        """Ask the daemon to look at its stores, credentials, disk and limits now."""
        return self._document("GET", "/v1/doctor")

    def jobs(self) -> list[JobView]:
        """List running, queued and remembered jobs."""
        from snapd.model.jobs import JobView

        return [JobView.from_json(job) for job in self._document("GET", "/v1/jobs")["jobs"]]

    def cancel(self, job_id: str) -> JobView:
        """Stop a job, for all who wait for it."""
        from snapd.model.jobs import JobView

        return JobView.from_json(self._document("DELETE", f"/v1/jobs/{_segment(job_id)}"))

    def prove(self, snapshot_id: str) -> Generator[ProofProgress, None, Proof]:
        """Prove a tree of the cache now: yields how far that is and returns the proof.

        Raises what keeps it from being proven. Closing the generator ends it.
        """
        from snapd.model.care import Proof, ProofProgress

        path = f"/v1/snapshots/{_segment(snapshot_id)}/verify"
        with self._exchange("POST", path) as (connection, response):
            while line := self._line(connection, response, None):
                document = json.loads(line)
                if document["state"] == "done":
                    return Proof.from_json(document["proof"])
                if document["state"] == "failed":
                    raise error_from_json(document["error"])
                yield ProofProgress.from_json(document)
        raise DaemonLost(
            f"the daemon at {self.socket_path} closed the connection before the proof ended",
            hint="Run the same command again.",
        )

    def snapshots(self) -> list[SnapshotView]:
        """List the complete snapshots of the cache."""
        from snapd.model.jobs import SnapshotView

        listed = self._document("GET", "/v1/snapshots")["snapshots"]
        return [SnapshotView.from_json(snapshot) for snapshot in listed]

    def receipt(self, snapshot_id: str) -> Receipt:
        """Ask for the receipt of a complete snapshot; raises `SnapshotNotFound`."""
        from snapd.model.receipts import Receipt

        path = f"/v1/snapshots/{_segment(snapshot_id)}/receipt"
        return Receipt.from_json(self._document("GET", path))

    def leases(self) -> list[Lease]:
        """List who holds which snapshot."""
        from snapd.model.leases import Lease

        return [Lease.from_json(lease) for lease in self._document("GET", "/v1/leases")["leases"]]

    def add_lease(self, request: LeaseRequest) -> Lease:
        """Hold a snapshot; a process lease is that of this very process."""
        from snapd.model.leases import Lease

        return Lease.from_json(self._document("POST", "/v1/leases", request.to_json()))

    def remove_lease(self, lease_id: str) -> Lease:
        """End a lease before its time; raises `LeaseNotFound`."""
        from snapd.model.leases import Lease

        return Lease.from_json(self._document("DELETE", f"/v1/leases/{_segment(lease_id)}"))

    def plan(self, request: PullRequest) -> PlanView:
        """Ask what a pull would do now."""
        from snapd.model.space import PlanView

        return PlanView.from_json(self._document("POST", "/v1/plan", request.to_json()))

    def resolve(self, reference: str, store: str) -> Resolved:
        """Ask where a reference leads in a store, which the daemon reads."""
        from snapd.model.references import Resolved

        body = {"reference": reference, "store": store}
        return Resolved.from_json(self._document("POST", "/v1/resolve", body))

    def follows(self) -> list[FollowView]:
        """Ask what is followed, and how that stands."""
        from snapd.model.follow_views import FollowView

        return [FollowView.from_json(x) for x in self._document("GET", "/v1/follows")["follows"]]

    def follow(self, request: FollowRequest) -> FollowView:
        """Ask the daemon to follow, over restarts."""
        from snapd.model.follow_views import FollowView

        return FollowView.from_json(self._document("POST", "/v1/follows", request.to_json()))

    def stop_following(self, follow_id: str) -> FollowView:
        """End a follow; raises `FollowNotFound`."""
        from snapd.model.follow_views import FollowView

        path = f"/v1/follows/{_segment(follow_id)}"
        return FollowView.from_json(self._document("DELETE", path))

    def sweep(self, request: SweepRequest) -> SweepReport:
        """Make space in the cache, or ask what that would take."""
        from snapd.model.space import SweepReport

        answer = self._document("POST", "/v1/sweep", request.to_json())
        return SweepReport.from_json(answer)

    def evict(self, snapshot_id: str, *, given_out_too: bool) -> SweepReport:
        """Take one snapshot out of the cache; raises `SnapshotNotFound`, `SnapshotInUse`."""
        from snapd.model.space import SweepReport

        path = f"/v1/snapshots/{_segment(snapshot_id)}?given_out_too={int(given_out_too)}"
        return SweepReport.from_json(self._document("DELETE", path))

    def patient(self) -> Client:
        """Make a client that waits for what is answered only when it is done."""
        return self.with_patience(max(self._silence_max_seconds, SWEEP_MAX_SECONDS))

    def with_patience(self, silence_max_seconds: float) -> Client:
        """Make a client of the same daemon that bears another silence."""
        return Client(
            self._socket_paths,
            own_directory=self._own_directory,
            uid=self._uid,
            silence_max_seconds=silence_max_seconds,
            trees=self._trees,
        )

    def start(self, request: PullRequest) -> JobView:
        """Start a pull that nobody needs to wait for."""
        from snapd.model.jobs import JobView

        body = request.to_json() | {"detach": True}
        return self._seen_here(JobView.from_json(self._document("POST", "/v1/pulls", body)))

    def pull(
        self, request: PullRequest, *, deadline: float | None = None
    ) -> Generator[JobView, None, None]:
        """Pull and yield how it stands, ending with a view whose state is an ended one.

        Closing the generator leaves: the job goes on only if somebody else waits for it. Raises
        `TimedOut` when `time.monotonic()` passes `deadline`.
        """
        return self._views("POST", "/v1/pulls", request.to_json(), deadline)

    def watch(self, job_id: str) -> Generator[JobView, None, None]:
        """Yield how a job stands until it ends; this keeps nothing alive."""
        return self._views("GET", f"/v1/jobs/{_segment(job_id)}/events", None, None)

    def trees_directory(self) -> str:
        """Tell where this process sees the daemon's trees."""
        return self._trees or str(self.status()["trees_directory"])

    def manifest(self, snapshot_id: str) -> bytes:
        """Ask for the manifest of a complete snapshot; whoever uses it compares its hash."""
        path = f"/v1/snapshots/{_segment(snapshot_id)}/manifest"
        with self._exchange("GET", path) as (_, response):
            return response.read()

    def _seen_here(self, view: JobView) -> JobView:
        if not self._trees or not view.tree:
            return view
        return view.with_changes(tree=os.path.join(self._trees, os.path.basename(view.tree)))

    def _document(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        with self._exchange(method, path, body) as (_, response):
            answer = json.loads(response.read())
        if not isinstance(answer, dict):
            raise ActionFailed(f"the daemon's answer to {path} is not a JSON object")
        return answer

    def _views(
        self, method: str, path: str, body: Any, deadline: float | None
    ) -> Generator[JobView, None, None]:
        from snapd.model.jobs import JobView

        with self._exchange(method, path, body, deadline) as (connection, response):
            while line := self._line(connection, response, deadline):
                if not line.strip():
                    continue
                view = self._seen_here(JobView.from_json(json.loads(line)))
                yield view
                if view.ended:
                    return
        raise DaemonLost(
            f"the daemon at {self.socket_path} closed the connection before the pull ended",
            hint="Run the same command again: what is verified is kept and not repeated.",
        )

    def _line(self, connection: socket.socket, response: Answer, deadline: float | None) -> bytes:
        connection.settimeout(self._patience(deadline))
        return response.readline()

    def _patience(self, deadline: float | None) -> float:
        if deadline is None:
            return self._silence_max_seconds
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, self._silence_max_seconds)

    def _silent(self, deadline: float | None) -> TimedOut:
        if deadline is not None and time.monotonic() >= deadline:
            return TimedOut(
                "the pull did not end within --timeout",
                hint="Allow more time; the job goes on only if others wait for it.",
            )
        return Stalled(
            f"the daemon at {self.socket_path} said nothing for {self._silence_max_seconds:.0f} s",
            hint="See the daemon's log; it may be stopped or its disk may hang.",
        )

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: Any = None, deadline: float | None = None
    ) -> Iterator[tuple[socket.socket, Answer]]:
        self._check_own_directory()
        where = self.socket_path
        connection = _connect(where, self._socket_paths)
        try:
            connection.settimeout(self._patience(deadline))
            payload = None if body is None else json.dumps(body)
            response = exchange(connection, method, path, payload)
            if response.status >= 400:
                raise _refusal(response)
            yield connection, response
        except TimeoutError as silence:
            raise self._silent(deadline) from silence
        except ConnectionError as broken:
            raise DaemonLost(
                f"the daemon at {where} closed the connection ({type(broken).__name__})"
            ) from broken
        except NotHttpError as garbled:
            raise DaemonNotRunning(
                f"what answers at {where} is no daemon: {garbled}",
                hint="Point --socket at the daemon's socket.",
            ) from garbled
        except ValueError as garbled:
            raise ActionFailed(f"what answers at {where} does not speak JSON: {garbled}") from None
        finally:
            connection.close()

    def _check_own_directory(self) -> None:
        """Refuse a socket directory in /tmp that somebody else made."""
        if not self._own_directory or not self.socket_path.startswith(f"{self._own_directory}/"):
            return
        try:
            found = os.lstat(self._own_directory)
        except OSError:
            return
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self._uid or found.st_mode & 0o022:
            raise AccessDenied(
                f"{self._own_directory} is not a directory of yours alone",
                hint="Somebody else may have made it: remove it, or set XDG_RUNTIME_DIR.",
            )


def _connect(path: str, looked_at: Sequence[str]) -> socket.socket:
    _expect_socket(path, looked_at)
    import socket
    import struct

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A blocking connect waits while the daemon's backlog is full; this bounds the wait.
        patience = struct.pack("ll", _CONNECT_SECONDS, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise _unconnected(path, looked_at, error) from error
    return connection


def _expect_socket(path: str, looked_at: Sequence[str]) -> None:
    """Raise `DaemonNotRunning` if nothing is there, before anything is loaded to speak to it."""
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX_BYTES:
        return
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _unconnected(path, looked_at, error) from error
    except (OSError, ValueError):
        return  # connecting says better what is wrong


def _unconnected(path: str, looked_at: Sequence[str], error: OSError) -> SnapsyncError:
    if isinstance(error, PermissionError):
        return _denied(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return DaemonNotRunning(f"no daemon: there is no socket at {' or '.join(looked_at)}")
    if isinstance(error, ConnectionRefusedError):
        return DaemonNotRunning(f"no daemon: nobody listens at {path}")
    if isinstance(error, BlockingIOError):
        return DaemonNotRunning(f"the daemon at {path} does not accept connections")
    if error.errno is None:
        return UsageError(f"not a socket path: {path!r} ({error})")
    return DaemonNotRunning(f"can't connect to {path}: {error.strerror}")


def _denied(path: str) -> AccessDenied:
    import grp

    group = ""
    for place in (path, os.path.dirname(path)):
        try:
            group = grp.getgrgid(os.stat(place).st_gid).gr_name
            break
        except (OSError, KeyError):
            continue
    owned = f" (it belongs to the group {group})" if group else ""
    join = f"Join the group {group} and log in again" if group else "Ask who runs the daemon"
    return AccessDenied(
        f"you may not open the daemon's socket {path}{owned}",
        hint=f"{join}, or pull into a cache of your own with --standalone.",
    )


def _refusal(response: Answer) -> SnapsyncError:
    raw = response.read(_ERROR_BODY_MAX_BYTES)
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    if isinstance(document, dict) and "code" in document:
        return error_from_json(document)
    return ActionFailed(f"the daemon answered {response.status} {response.reason}")


def _segment(job_id: str) -> str:
    if job_id.replace("-", "").isalnum() and job_id.isascii():
        return job_id
    from urllib.parse import quote

    return quote(job_id, safe="")
