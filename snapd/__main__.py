"""`snapd`: words, file and environment in; a daemon; an exit code out."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from snapd import __version__
from snapd.model.config import check_whole, load_settings, settings_from_document
from snapd.model.errors import (
    EXIT_CODE_MEANINGS,
    ExitCode,
    InternalError,
    InvalidConfig,
    SnapsyncError,
)
from snapd.model.places import Places, default_places
from snapd.model.settings import Settings
from snapd.runtime.log import set_up_logging

logger = logging.getLogger("snapd")

EXIT_CODES = (
    ExitCode.DONE,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.NO_SPACE,
    ExitCode.NOT_ALLOWED,
    ExitCode.INTERRUPTED,
)

EPILOG = """\
examples:
  snapd                                     your own daemon, on your own cache
  snapd --store s3://datasets               the same, reading nothing but one bucket
  snapd --config /etc/snapsync/config.toml  the node's daemon, as its service starts it
  snapd --config FILE --check-config        look for mistakes and start nothing

signals:
  TERM, INT   take no new pulls, let running ones end within grace_seconds; again: stop at once
  HUP         read the configuration again: allowed stores, admission, grace time, log

environment (an option wins over it, and it wins over the file):
  SNAPSYNC_CONFIG, SNAPSYNC_SOCKET, SNAPSYNC_CACHE_DIR, SNAPSYNC_LISTEN, SNAPSYNC_LOG_FORMAT,
  SNAPSYNC_LISTEN_TOKEN_FILE, SNAPSYNC_NODE_NAME, SNAPSYNC_STORES (separated by spaces)

exit codes:
"""


@dataclass(frozen=True, slots=True)
class Words:
    """What command line and environment say; None or empty means that they say nothing."""

    config: str = ""
    socket: str = ""
    cache_dir: str = ""
    listen: str | None = None
    log_format: str = ""
    stores: tuple[str, ...] = ()
    check_config: bool = False
    node_name: str = ""
    listen_token_file: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `snapd` with the process's own words and environment; returns the exit code."""
    ordinary = os.geteuid() != 0
    words = read_words(sys.argv[1:] if argv is None else argv, os.environ)
    places = default_places(os.environ, uid=os.geteuid())
    load = partial(settings_of, words, places, private=ordinary)
    try:
        settings = load()
    except SnapsyncError as error:
        print(f"snapd: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    file = config_file(words, places)
    if words.check_config:
        print(f"the configuration is fit: {file or 'no file, so the defaults'}")
        return ExitCode.DONE
    set_up_logging(settings.log)
    raise_open_files_limit()
    or_any_port = ordinary and words.listen is None and file is None
    # The watchdog of a supervisor ends a daemon that hangs by SIGABRT: its log then says where.
    faulthandler.enable()
    return run(settings, load, os.environ, or_any_port=or_any_port)


def read_words(argv: Sequence[str], environment: Mapping[str, str]) -> Words:
    """Read the command line, and where it is silent the environment; exits 2 on bad usage."""
    given = _parser().parse_args(argv)

    def said(option: str | None, name: str) -> str:
        return option if option is not None else environment.get(f"SNAPSYNC_{name}", "")

    return Words(
        config=said(given.config, "CONFIG"),
        socket=said(given.socket, "SOCKET"),
        cache_dir=said(given.cache_dir, "CACHE_DIR"),
        listen=environment.get("SNAPSYNC_LISTEN") if given.listen is None else given.listen,
        listen_token_file=said(given.listen_token_file, "LISTEN_TOKEN_FILE"),
        log_format=said(given.log_format, "LOG_FORMAT"),
        stores=tuple(given.store or environment.get("SNAPSYNC_STORES", "").split()),
        check_config=given.check_config,
        node_name=environment.get("SNAPSYNC_NODE_NAME", ""),
    )


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {int(code):<4}{EXIT_CODE_MEANINGS[code]}" for code in EXIT_CODES)
    parser = argparse.ArgumentParser(
        prog="snapd",
        description="Pull verified snapshots from object storage into one cache for this node.",
        epilog=EPILOG + codes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="configuration (TOML); config.example.toml explains it")
    add("--socket", metavar="PATH", help="where snapctl reaches this daemon")
    add("--cache-dir", metavar="DIR", help="the state directory")
    add("--store", metavar="URI", action="append", help="a store that may be read; repeatable")
    add("--listen", metavar="HOST:PORT", help="address of health, metrics and page; '': none")
    add("--listen-token-file", metavar="FILE", help="token that page and metrics ask for")
    add("--log-format", metavar="text|json", help="shape of the log lines on stderr")
    add("--check-config", action="store_true", help="read the configuration, say if it is fit, end")
    add("--version", action="version", version=f"snapd {__version__}")
    return parser


def config_file(words: Words, places: Places) -> Path | None:
    """Tell which file is read: the one that was named, else the default one if it exists."""
    if words.config:
        return Path(words.config)
    return places.config_file if places.config_file.exists() else None


def settings_of(words: Words, places: Places, *, private: bool) -> Settings:
    """Put defaults, file and words together; raises `InvalidConfig` naming what is unfit.

    Without a file a `private` daemon, an ordinary user's own, may read whatever that user may, and
    its socket is for that user alone. Every other daemon reads only what it was told to.
    """
    file = config_file(words, places)
    settings = Settings() if file is None else load_settings(_text(file))
    if private and file is None:
        own = replace(settings.daemon, stores=("*",), socket_mode=0o600)
        settings = replace(settings, daemon=own)
    spoken = _document(words)
    checked = settings_from_document(spoken)
    for section, keys in spoken.items():
        taken = {key: getattr(getattr(checked, section), key) for key in keys}
        settings = replace(settings, **{section: replace(getattr(settings, section), **taken)})
    daemon = replace(settings.daemon, socket=settings.daemon.socket or str(places.socket))
    cache = replace(settings.cache, directory=settings.cache.directory or str(places.cache_dir))
    return check_whole(replace(settings, daemon=daemon, cache=cache))


def _document(words: Words) -> dict[str, dict[str, Any]]:
    """Write the words as a configuration document, so that they are checked like one."""
    document: dict[str, dict[str, Any]] = {"daemon": {}, "cache": {}, "log": {}}
    if words.socket:
        document["daemon"]["socket"] = os.path.abspath(words.socket)
    if words.listen is not None:
        document["daemon"]["listen"] = words.listen
    if words.listen_token_file:
        document["daemon"]["listen_token_file"] = os.path.abspath(words.listen_token_file)
    if words.stores:
        document["daemon"]["stores"] = list(words.stores)
    if words.cache_dir:
        document["cache"]["directory"] = os.path.abspath(words.cache_dir)
    if words.node_name:
        document["cache"]["node_name"] = words.node_name
    if words.log_format:
        document["log"]["format"] = words.log_format
    return document


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(
            f"can't read the configuration {file}: {error.strerror}", hint="Check --config."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"the configuration {file} is not UTF-8: {error}") from error


def raise_open_files_limit() -> None:
    """Allow as many open files as the system lets us: each transfer and each client needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(
    settings: Settings,
    load: Callable[[], Settings],
    environment: Mapping[str, str],
    *,
    or_any_port: bool,
) -> int:
    """Serve until a signal ends it; a failure is logged with its hint and becomes the exit code.

    `environment` says who supervises this process, and whether it was given its socket.
    """
    import anyio

    from snapd.daemon import Launch, serve_until_signalled
    from snapd.runtime.notify import LISTEN_FDS_START, sockets_handed_over, supervisor_of

    process_id = os.getpid()
    given = sockets_handed_over(environment, process_id)
    launch = Launch(
        settings,
        load,
        supervisor_of(environment, process_id),
        or_any_port,
        LISTEN_FDS_START if given else None,
    )
    try:
        anyio.run(serve_until_signalled, launch, backend_options={"use_uvloop": True})
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as failure:
        error = cause_of(failure)
        if isinstance(error, InternalError):
            logger.exception("snapd met a defect")
        logger.critical("%s", error.message, extra={"code": error.code, "hint": error.hint})
        return error.exit_code
    return ExitCode.DONE


def cause_of(failure: BaseException) -> SnapsyncError:
    """Find the error in a failure that may be a group of groups; a defect outweighs the others."""
    leaves = list(_leaves(failure))
    for leaf in leaves:
        if not isinstance(leaf, SnapsyncError):
            return InternalError(f"{type(leaf).__name__}: {leaf}")
    return next(leaf for leaf in leaves if isinstance(leaf, SnapsyncError))


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for part in failure.exceptions:
            yield from _leaves(part)
    else:
        yield failure


if __name__ == "__main__":
    sys.exit(main())
