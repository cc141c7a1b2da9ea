"""What a checkout is asked to do, how it tells its progress, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from snapd.model.ids import SnapshotId

if TYPE_CHECKING:
    from snapd.model.exclude import Excludes

CheckoutMode = Literal["auto", "reflink", "hardlink", "copy", "symlink"]
CHECKOUT_MODES: tuple[CheckoutMode, ...] = get_args(CheckoutMode)


class CheckoutOptions(NamedTuple):
    """What a checkout does and what it must not touch.

    `exclude` protects from deletion; its patterns are searched in paths that start with `./`.
    `protected` are caches and stores, which a destination may neither be, hold nor lie in; `home`
    is a directory that it may neither be nor hold. `verify` hashes every file as it is laid out.
    `jobs` is how many processes may work side by side; they are forked, so only a process without
    threads that matter asks for more than one.
    """

    mode: CheckoutMode = "auto"
    delete: bool = False
    dryrun: bool = False
    exclude: Excludes | None = None
    keep_setid: bool = False
    protected: tuple[Path, ...] = ()
    home: Path | None = None
    verify: bool = False
    jobs: int = 1


class CheckoutProgress(NamedTuple):
    """How far a checkout is; bytes are those that the manifest states, which is a hint."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


OnProgress = Callable[[CheckoutProgress], None]


class CheckoutChange(NamedTuple):
    """One thing that a dry run found: `A` to be made, `M` to be replaced or changed."""

    status: Literal["A", "M"]
    path: str


class CheckoutReport(NamedTuple):
    """What was done, or with `dryrun` would be. `files` counts all; `kept` of them were right.

    `mode` is what was used in fact: `auto` is reported as `reflink` or `copy`.
    """

    snapshot_id: SnapshotId
    destination: Path
    mode: str
    dryrun: bool = False
    files: int = 0
    directories: int = 0
    kept: int = 0
    linked: int = 0
    reflinked: int = 0
    copied: int = 0
    bytes_copied: int = 0
    deleted: tuple[str, ...] = ()
    changes: tuple[CheckoutChange, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        changes = [change._asdict() for change in self.changes]
        return self._asdict() | {"destination": str(self.destination), "changes": changes}
