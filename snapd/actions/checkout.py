"""Lay a snapshot out at a path of the caller's choice, from a complete tree in a cache.

What is promised:

* Nothing outside the destination changes. No symbolic link in it is ever followed; one in the place
  of a file or directory is replaced. A file that shares its inode with a name outside is replaced.
* A file's final name shows complete bytes only, and nobody may read in between what he may not
  read at the end. After a failure or a kill the next checkout resumes: it removes what was
  half-done and keeps files that are right, by their hash. Reflinks and copies into an empty
  destination are made in a temporary directory inside, under the names that they will have; that
  alone is left of one that was killed, and the next goes on in it.
* Modes end exactly as in the manifest, so that the destination has the snapshot's ID. The exception
  are set-uid and set-gid bits of files, which are dropped with a warning unless `keep_setid`; on
  directories set-gid only passes a group on, and stays.
* What the snapshot does not list stays, unless `delete`. A directory in the place of a listed file,
  and a file in the place of a listed directory, are replaced either way.

`auto` makes private, writable files: by reflink where that works, else by copy. Hard links are made
only when asked for, because writing through one would damage the cache. `symlink` makes one link to
the whole tree. Nothing is made durable: a checkout can be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from snapd.disk import fsops
from snapd.disk.destination import (
    Destination,
    look_at_destination,
    manifest_rule,
    open_destination,
    path_error,
    replace_by_link,
    resolve_destination,
)
from snapd.disk.laying_out import LayingOut
from snapd.disk.tree_source import open_tree
from snapd.model.checkouts import (
    CHECKOUT_MODES,
    CheckoutChange,
    CheckoutMode,
    CheckoutOptions,
    CheckoutProgress,
    CheckoutReport,
    OnProgress,
)
from snapd.model.errors import TreeDiffers
from snapd.model.manifest import Manifest
from snapd.model.protection import ProtectedPlace, refuse_dangerous

__all__ = [
    "CHECKOUT_MODES",
    "CheckoutChange",
    "CheckoutMode",
    "CheckoutOptions",
    "CheckoutProgress",
    "CheckoutReport",
    "OnProgress",
    "checkout",
]


def checkout(
    manifest: Manifest,
    tree: Path,
    dest: Path,
    options: CheckoutOptions,
    on_progress: OnProgress,
) -> CheckoutReport:
    """Lay `manifest` out at `dest` from its complete `tree`; blocking.

    Raises `DangerousDestination` before anything is read or written, `DestinationBusy` while
    another process lays out at the same destination, `NoSpace`, `AccessDenied` naming the path,
    and `TreeDiffers` if the tree does not hold what the manifest lists.
    """
    tree = tree.absolute()
    with fsops.translated("can't resolve the destination", dest):
        destination = resolve_destination(dest)
    refuse_dangerous(PurePosixPath(destination), _protected_places(tree, options))
    if options.mode == "symlink":
        return _link_tree(manifest, tree, destination, options)
    if options.dryrun:
        return _preview(manifest, tree, destination, options)
    return _lay_out(manifest, tree, destination, options, on_progress)


def _protected_places(tree: Path, options: CheckoutOptions) -> Iterable[ProtectedPlace]:
    yield ProtectedPlace(_real(tree), "the snapshot's tree in the cache")
    for path in options.protected:
        yield ProtectedPlace(_real(path), "a cache or a store")
    if options.home is not None:
        yield ProtectedPlace(_real(options.home), "the home directory", below_allowed=True)


def _real(path: Path) -> PurePosixPath:
    return PurePosixPath(os.path.realpath(path))


def _link_tree(
    manifest: Manifest, tree: Path, destination: Path, options: CheckoutOptions
) -> CheckoutReport:
    if not tree.is_dir():
        raise TreeDiffers(f"there is no tree at {tree}")
    change = CheckoutChange("M" if os.path.lexists(destination) else "A", "./")
    if not options.dryrun:
        with fsops.translated("can't make a link", destination):
            replace_by_link(destination, tree)
    return CheckoutReport(
        manifest.id,
        destination,
        "symlink",
        dryrun=options.dryrun,
        files=manifest.file_count,
        directories=manifest.directory_count,
        changes=(change,) if options.dryrun else (),
    )


def _lay_out(
    manifest: Manifest,
    tree: Path,
    destination: Path,
    options: CheckoutOptions,
    on_progress: OnProgress,
) -> CheckoutReport:
    root_mode = manifest[0].mode
    with fsops.translated("can't lay out the snapshot", destination), ExitStack() as stack:
        source = stack.enter_context(open_tree(tree))
        target = stack.enter_context(open_destination(destination, root_mode))
        run = stack.enter_context(LayingOut(manifest, source, target, options, on_progress))
        run.lay_out_all()
        deleted = tuple(_prune(manifest, target, options)) if options.delete else ()
        run.finish_directories()
        return run.report(deleted)


def _preview(
    manifest: Manifest, tree: Path, destination: Path, options: CheckoutOptions
) -> CheckoutReport:
    """Look, and tell what would change; nothing is written, not even a mode."""
    from snapd.disk.comparing import Comparison

    changes: list[CheckoutChange] = []
    deleted: tuple[str, ...] = ()
    kept = 0
    with fsops.translated("can't look at the destination", destination), ExitStack() as stack:
        source = stack.enter_context(open_tree(tree))
        target = stack.enter_context(look_at_destination(destination))
        compare = Comparison(source, target, options)
        for entry in manifest:
            try:
                status = compare.status(entry)
            except OSError as exc:
                raise path_error(exc, destination, entry.path) from exc
            if status:
                changes.append(CheckoutChange(status, entry.path))
            elif entry.kind == "F":
                kept += 1
        if options.delete and target is not None:
            deleted = tuple(_prune(manifest, target, options))
    return CheckoutReport(
        manifest.id,
        destination,
        options.mode,
        dryrun=True,
        files=manifest.file_count,
        directories=manifest.directory_count,
        kept=kept,
        deleted=deleted,
        changes=tuple(changes),
    )


def _prune(manifest: Manifest, target: Destination, options: CheckoutOptions) -> Iterable[str]:
    """Remove, or with `dryrun` only name, what the manifest does not list."""
    exclude = options.exclude

    def protected(path: bytes) -> bool:
        return exclude is not None and exclude.matches("./" + os.fsdecode(path))

    try:
        for path in target.prune(manifest_rule(manifest), protected, remove=not options.dryrun):
            yield "./" + os.fsdecode(path)
    except OSError as exc:
        raise path_error(exc, target.path, os.fsdecode(exc.filename or b"")) from exc
