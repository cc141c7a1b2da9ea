"""The one tree of errors, each with a code, an exit code, a retry mark and a hint.

Edges translate what a vendor, the kernel or a peer says into one of these (`raise ... from exc`);
everything above handles these only. Nobody logs an error that they also raise.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """What `snapctl` and `snapd` exit with; the same table stands in every `--help`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTLY_DONE = 3
    NO_SUCH_SNAPSHOT = 10
    NO_SPACE = 11
    DIGEST_MISMATCH = 12
    STORE_UNREACHABLE = 13
    DAEMON_NOT_RUNNING = 14
    NOT_ALLOWED = 15
    TIMED_OUT = 16
    MANIFEST_REFUSED = 17
    INTERRUPTED = 130


EXIT_CODE_MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "usage",
    ExitCode.PARTLY_DONE: "partly done",
    ExitCode.NO_SUCH_SNAPSHOT: "no such snapshot",
    ExitCode.NO_SPACE: "no space",
    ExitCode.DIGEST_MISMATCH: "data does not match its digest",
    ExitCode.STORE_UNREACHABLE: "store unreachable",
    ExitCode.DAEMON_NOT_RUNNING: "daemon not running",
    ExitCode.NOT_ALLOWED: "not allowed",
    ExitCode.TIMED_OUT: "timed out or stalled",
    ExitCode.MANIFEST_REFUSED: "refused manifest",
    ExitCode.INTERRUPTED: "interrupted",
}


class SnapsyncError(Exception):
    """Something this project failed at, said so that a person and a program can act on it.

    `message` names the input (path, key, ID, URI). `details` are JSON-ready facts for programs.
    `hint` says what to do next; a class has a default and an instance may be more precise.
    `retryable` means: the same call may succeed later without anybody changing anything.
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = "See the daemon's log for the whole story."

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.details = details

    def to_json(self) -> dict[str, Any]:
        """Render as the document that ends stderr under `--json` and that the API replies with."""
        document: dict[str, Any] = {
            "code": self.code,
            "exit_code": int(self.exit_code),
            "message": self.message,
            "hint": self.hint,
        }
        if self.details:
            document["details"] = self.details
        return document


class InternalError(SnapsyncError):
    """A defect of ours: an exception that no edge translated."""

    code = "internal_error"
    default_hint = "This is a defect in snapsync: please report it with the log around this time."


class ActionFailed(SnapsyncError):
    """A step failed for a reason that has no class of its own (an unexpected OSError, say)."""

    code = "failed"
    default_hint = "The message names the system's own reason."


class ObjectLost(ActionFailed):
    """An object that was in the cache is not there any more."""

    code = "object_lost"
    retryable = True
    default_hint = "Pull the snapshot again: only what is missing is fetched."


class PartlyDone(SnapsyncError):
    """Some of the work was done and stays; the details say what was not."""

    code = "partly_done"
    exit_code = ExitCode.PARTLY_DONE
    default_hint = "Run the same command again: what is done is kept and not repeated."


class UsageError(SnapsyncError):
    """The caller's words are wrong; nothing was read or written."""

    code = "usage"
    exit_code = ExitCode.USAGE
    default_hint = "See --help."


class InvalidId(UsageError):
    """A snapshot ID or digest that is not 64 hexadecimal digits."""

    code = "invalid_id"
    default_hint = "An ID is 64 hexadecimal digits, as `snapctl push` and `snapctl id` print it."


class InvalidName(UsageError):
    """A name, a version, an alias, a note or who did it, in a form that the registry refuses."""

    code = "invalid_name"
    default_hint = (
        "Names are letters, digits, '.', '_' and '-', at most 128; versions are like v1.2.0."
    )


class InvalidReference(UsageError):
    """A reference that does not say which name, or which version of it."""

    code = "invalid_reference"
    default_hint = "A reference is NAME@VERSION, NAME@STAGE or NAME@ALIAS, as imagenet@v1.2.0."


class InvalidStoreUri(UsageError):
    """A store URI that can't be understood, or of a scheme nobody here speaks."""

    code = "invalid_store_uri"
    default_hint = "Use s3://bucket/prefix, gs://bucket/prefix or file:///absolute/path."


class InvalidConfig(UsageError):
    """A configuration file with an unknown key or a value out of range."""

    code = "invalid_config"
    default_hint = "config.example.toml names every key with its default and meaning."


class InvalidPattern(UsageError):
    """An exclude pattern that is not a regular expression of the format's kind."""

    code = "invalid_pattern"
    default_hint = "Patterns are regular expressions searched in the absolute path of each entry."


class DangerousDestination(UsageError):
    """A destination that is, holds or lies in something that must not be overwritten."""

    code = "dangerous_destination"
    default_hint = "Choose a directory that neither holds nor lies in the cache, a store or $HOME."


class DestinationBusy(SnapsyncError):
    """Another process is laying out a snapshot at the same destination."""

    code = "destination_busy"
    retryable = True
    default_hint = "Wait for the other command, or choose another destination."


class DestinationMissing(SnapsyncError):
    """The directory of a follow, or the one that it is to be made in, does not exist."""

    code = "destination_missing"
    default_hint = "Make the directory, or mount the volume that it lies on."


class DestinationTaken(SnapsyncError):
    """The directory of a follow holds something else, or another follow has it."""

    code = "destination_taken"
    default_hint = "Choose an empty directory, or one that does not exist yet."


class SourceUnfit(SnapsyncError):
    """A directory that the format can't carry: a name, a link cycle, an unreadable entry."""

    code = "source_unfit"
    default_hint = "Rename, exclude or repair the named entry."


class SourceChanged(SnapsyncError):
    """A file changed between being hashed and being read or uploaded."""

    code = "source_changed"
    default_hint = "Stop whatever writes to the directory, then run the command again."


class SnapshotNotFound(SnapsyncError):
    """The store has no manifest of that ID."""

    code = "no_such_snapshot"
    exit_code = ExitCode.NO_SUCH_SNAPSHOT
    default_hint = "Compare the ID and the store with those that `snapctl push` printed."


class ReferenceNotFound(SnapsyncError):
    """A reference to something that the registry does not have; the subclasses say what."""

    code = "no_such_reference"
    exit_code = ExitCode.NO_SUCH_SNAPSHOT
    default_hint = "`snapctl dataset ls` and `snapctl model ls` list the names of a store."


class NameNotFound(ReferenceNotFound):
    """The registry of the store has no dataset and no model of that name."""

    code = "no_such_name"


class NothingThen(ReferenceNotFound):
    """A stage or an alias that led to no version at the time that was asked about."""

    code = "nothing_then"
    default_hint = "`snapctl model history NAME` tells when what came where."


class NothingKnown(ReferenceNotFound):
    """Bytes that no name, no run and no push tells anything about."""

    code = "nothing_known"
    default_hint = "Ask another store, or look through more snapshots with --snapshots."


class VersionNotFound(ReferenceNotFound):
    """The name is there, but has no such version, stage or alias, or none in that stage."""

    code = "no_such_version"
    default_hint = "`snapctl dataset show NAME` and `snapctl model show NAME` list its versions."


class RunNotFound(ReferenceNotFound):
    """The registry of the store has no record of such a run."""

    code = "no_such_run"
    default_hint = "`snapctl run ls` lists the latest runs of a store."


class RunDiffers(SnapsyncError):
    """A recorded run that is not as it was: snapshots, code, what it ran in, or what it makes."""

    code = "run_differs"
    default_hint = "The lines say what differs; `snapctl run show RUN` prints the record."


class NoSpace(SnapsyncError):
    """The disk or the quota is full; what is verified stays."""

    code = "no_space"
    exit_code = ExitCode.NO_SPACE
    default_hint = "Free space on that file system and run the command again: it resumes."


class CacheFull(NoSpace):
    """A snapshot does not fit, whatever may be evicted; refused before its first object."""

    code = "cache_full"
    default_hint = (
        "Free what holds the named snapshots, raise the limit, or wait with --wait-for-space."
    )


class SnapshotInUse(SnapsyncError):
    """A snapshot that somebody holds was to be evicted."""

    code = "snapshot_in_use"
    default_hint = "`snapctl leases` shows who holds what; it can go when they are done."


class DigestMismatch(SnapsyncError):
    """Bytes that do not hash to the digest that names them; never kept at a final name."""

    code = "digest_mismatch"
    exit_code = ExitCode.DIGEST_MISMATCH
    default_hint = "The copy in the store is damaged: push the snapshot again from a good source."


class ObjectMissing(DigestMismatch):
    """A manifest names an object that the store does not have."""

    code = "object_missing"
    default_hint = "The snapshot in the store is incomplete: push it again from a good source."


class TreeDiffers(DigestMismatch):
    """A directory or a tree that is not the snapshot it should be."""

    code = "tree_differs"
    default_hint = "`snapctl diff` shows what differs; `snapctl checkout` lays it out again."


class StoreUnreachable(SnapsyncError):
    """The store did not answer as a store; the subclasses say in which way."""

    code = "store_unreachable"
    exit_code = ExitCode.STORE_UNREACHABLE
    retryable = True
    default_hint = "Check the endpoint, the network and the store's own status."


class ConnectionRefused(StoreUnreachable):
    """Nobody listens at the endpoint's address and port."""

    code = "connection_refused"
    default_hint = "Check the endpoint's host and port, and that the service is up."


class ConnectionLost(StoreUnreachable):
    """The connection was reset or closed, or the body was cut short."""

    code = "connection_lost"
    default_hint = "Usually passing; if it persists look at proxies and load balancers in between."


class NameNotResolved(StoreUnreachable):
    """The endpoint's host name has no address."""

    code = "name_not_resolved"
    default_hint = "Check the endpoint's spelling and this node's DNS."


class TlsFailed(StoreUnreachable):
    """The TLS handshake or the certificate check failed."""

    code = "tls_failed"
    retryable = False
    default_hint = "Check the CA bundle (AWS_CA_BUNDLE or ca_file), the host name and the clock."


class Throttled(StoreUnreachable):
    """The store asked to slow down (429, 503 SlowDown); may carry `retry_after_seconds`."""

    code = "throttled"
    default_hint = "The store is overloaded: it is asked again, more slowly."


class StoreFailing(StoreUnreachable):
    """The store answered with an error of its own (500, 502, 504, or no HTTP at all)."""

    code = "store_failing"
    default_hint = "Look at the store's own status; it is asked again for a while."


class StoreMissing(StoreUnreachable):
    """The bucket or the directory that the URI names does not exist."""

    code = "store_missing"
    retryable = False
    default_hint = "Check the bucket or path in the store URI, and the region and endpoint."


class DaemonNotRunning(SnapsyncError):
    """The control socket is absent or nobody listens on it."""

    code = "daemon_not_running"
    exit_code = ExitCode.DAEMON_NOT_RUNNING
    retryable = True
    default_hint = (
        "Start snapd, or point --socket at its socket; `snapctl pull --standalone` needs none."
    )


class DaemonLost(DaemonNotRunning):
    """The daemon was there and went away before it had answered: stopped, killed or upgraded."""

    code = "daemon_lost"
    default_hint = "Look whether snapd is still running; then run the same command again."


class NotAllowed(SnapsyncError):
    """Somebody may not do this: the caller, the daemon, or its credentials."""

    code = "not_allowed"
    exit_code = ExitCode.NOT_ALLOWED
    default_hint = "Ask whoever owns the named resource."


class RoleMissing(NotAllowed):
    """A caller of the control socket who may not do this."""

    code = "role_missing"
    default_hint = "Ask who runs the daemon: `[access]` in its configuration says who may do what."


class LeaseOfAnother(NotAllowed):
    """A lease that was to be ended by somebody who is neither its holder nor an administrator."""

    code = "lease_of_another"
    default_hint = "It ends when its holder lets go, or an administrator of the daemon ends it."


class StoreNotAllowed(NotAllowed):
    """A store that is not on the daemon's list."""

    code = "store_not_allowed"
    default_hint = "Add the store to `[daemon] stores` in the daemon's configuration."


class AccessDenied(NotAllowed):
    """The store refused the credentials, or a permission is missing (403, EACCES)."""

    code = "access_denied"
    default_hint = "Check that the credentials may read (or write) this bucket and prefix."


class CredentialsMissing(NotAllowed):
    """No credentials were found where AWS's chain looks for them."""

    code = "credentials_missing"
    default_hint = "Set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the node or pod a role."


class CredentialsExpired(NotAllowed):
    """The store says that the token expired; refreshed and tried once more before this is final."""

    code = "credentials_expired"
    default_hint = "Log in again (aws sso login) or check the role's session."


class TimedOut(SnapsyncError):
    """A deadline passed."""

    code = "timed_out"
    exit_code = ExitCode.TIMED_OUT
    retryable = True
    default_hint = "Allow more time with --timeout, or look at why the store is slow."


class Stalled(TimedOut):
    """No byte arrived for the configured time."""

    code = "stalled"
    default_hint = "The store or the network stopped sending; it is asked again for a while."


class ManifestRefused(SnapsyncError):
    """A manifest that breaks a rule of the format; refused whole, before anything is written."""

    code = "manifest_refused"
    exit_code = ExitCode.MANIFEST_REFUSED
    default_hint = "The manifest is damaged or hostile: do not trust where the ID came from."


class Interrupted(SnapsyncError):
    """Somebody asked to stop: Ctrl-C, a signal, or a cancel."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED
    default_hint = "Run the same command again: what is verified is kept and not repeated."


class JobCancelled(Interrupted):
    """The job was cancelled by somebody else."""

    code = "job_cancelled"


class KeyMissing(SnapsyncError):
    """A store has nothing at a key; actions translate it to the word their user knows."""

    code = "no_such_key"
    default_hint = "Check the store URI: the bucket answered, but has nothing at that key."


class ConditionFailed(SnapsyncError):
    """A conditional write found another state than it was made for; nothing was written."""

    code = "condition_failed"
    default_hint = "Somebody else wrote at the same time: read again and decide anew."


class RegistryRefused(SnapsyncError):
    """A change that a rule of the registry forbids; nothing was written."""

    code = "registry_refused"
    default_hint = "`snapctl model show NAME` tells how the versions stand."


class VersionExists(RegistryRefused):
    """A version that is published already, which is for good."""

    code = "version_exists"
    default_hint = "Versions never change: publish this as the next version."


class RunExists(RegistryRefused):
    """A run of that ID that is recorded already, with other contents, which is for good."""

    code = "run_exists"
    default_hint = "Records never change: record it under another ID."


class VersionDeprecated(RegistryRefused):
    """A deprecated version was to be promoted."""

    code = "version_deprecated"
    default_hint = "Add the snapshot as a new version, or promote another one."


class NothingToRollBack(RegistryRefused):
    """No earlier version of the model may go back to production."""

    code = "nothing_to_roll_back"
    default_hint = "Name the version with --to, or promote one."


class RegistryFull(RegistryRefused):
    """A document of the registry would become larger than is accepted."""

    code = "registry_full"
    default_hint = "Begin a new name, or say less in notes, cards, parameters and metrics."


class ClockBehind(RegistryRefused):
    """This machine's clock is far behind the last change, which would come after the new one."""

    code = "clock_behind"
    default_hint = "Synchronise the clock (chronyc tracking, timedatectl): history is in its order."


class RegistryUnreadable(SnapsyncError):
    """A document of the registry that is not understood, and therefore never overwritten."""

    code = "registry_unreadable"


class RegistryDamaged(RegistryUnreadable):
    """A document of the registry that breaks its own rules, as after an edit by hand."""

    code = "registry_damaged"
    default_hint = (
        "Put an earlier copy of that key back (the bucket's versioning, a backup), or correct it."
    )


class RegistryTooNew(RegistryUnreadable):
    """A document of the registry in a schema that this version does not know."""

    code = "registry_too_new"
    default_hint = "Use the version of snapsync that wrote it, or a newer one."


class RegistryBusy(SnapsyncError):
    """Others changed the same document each time that this change was to be written."""

    code = "registry_busy"
    retryable = True
    default_hint = "Run the same command again: nothing was written."


class ConditionsMissing(ActionFailed):
    """A store that does not keep conditions on writes, in which two writers would lose updates."""

    code = "no_conditional_writes"
    default_hint = "Use a store with If-Match and If-None-Match, for example S3 itself."


class QueueFull(SnapsyncError):
    """The daemon has as many pulls waiting as it is willing to remember."""

    code = "queue_full"
    retryable = True
    default_hint = "Try again later, or raise `[daemon] pulls_queued_max`."


class DaemonStopping(SnapsyncError):
    """The daemon is draining before it stops and takes no new pulls."""

    code = "daemon_stopping"
    exit_code = ExitCode.DAEMON_NOT_RUNNING
    retryable = True
    default_hint = "Try again when the daemon has been started again."


class SocketBusy(SnapsyncError):
    """Another daemon serves the control socket that this one was to serve."""

    code = "socket_busy"
    default_hint = "Stop the other daemon, or give this one its own --socket and --cache-dir."


class JobNotFound(SnapsyncError):
    """No job of that ID is known to the daemon."""

    code = "no_such_job"
    default_hint = "`snapctl jobs` lists the running and the recent ones."


class LeaseNotFound(SnapsyncError):
    """No lease of that ID, or no such hold on that snapshot, is known."""

    code = "no_such_lease"
    default_hint = "`snapctl leases` lists who holds what."


class FollowNotFound(SnapsyncError):
    """The daemon follows nothing at that destination."""

    code = "no_such_follow"
    default_hint = "`snapctl follow status` lists what the daemon follows."


class HookFailed(SnapsyncError):
    """The hook of a follow failed; what it was told of is live all the same."""

    code = "hook_failed"
    default_hint = "The daemon's log has what the hook wrote."


class CacheUnusable(SnapsyncError):
    """The state directory can't be used as it is (version, permission, file system)."""

    code = "cache_unusable"
    default_hint = "Check the owner and the permissions of the state directory."


def _subclasses(root: type[SnapsyncError]) -> dict[str, type[SnapsyncError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _subclasses(child)
    return found


def error_from_json(document: dict[str, Any]) -> SnapsyncError:
    """Rebuild the error that `to_json` rendered, so that a client exits as the daemon meant.

    An unknown code (a newer daemon) becomes a `SnapsyncError` with the same message and hint.
    """
    kind = _subclasses(SnapsyncError).get(str(document.get("code")), SnapsyncError)
    details = document.get("details")
    return kind(
        str(document.get("message", "unknown error")),
        hint=document.get("hint"),
        **(details if isinstance(details, dict) else {}),
    )
