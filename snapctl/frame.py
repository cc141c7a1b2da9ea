"""What every command shares: the common options, and a help that ends with examples and codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from snapctl.context import Context
from snapd.model.errors import EXIT_CODE_MEANINGS

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


_STANDALONE_SWITCHES = {
    "--standalone": "--standalone=always",
    "--no-standalone": "--standalone=never",
}

_SWITCH_WORDS = {"1": "always", "true": "always", "yes": "always"} | {
    "0": "never",
    "false": "never",
    "no": "never",
}


def _set_on_context(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    if not value or not param.name:
        return value
    context = ctx.ensure_object(Context)
    typed = ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    # The variable is seen again after the verb, where it must not win over a flag before it.
    if typed or not getattr(context, param.name):
        setattr(context, param.name, value)
    return value


_UNEXPOSED: dict[str, Any] = {
    "expose_value": False,
    "is_eager": True,
    "callback": _set_on_context,
}


def _common_options() -> list[click.Option]:
    """Make the options that are accepted both before and after the verb."""
    return [
        click.Option(
            ["--json", "as_json"], is_flag=True, help="One JSON document on stdout.", **_UNEXPOSED
        ),
        click.Option(
            ["--events"], is_flag=True, help="One JSON line per event on stdout.", **_UNEXPOSED
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            help="No progress and no notes on stderr.",
            **_UNEXPOSED,
        ),
        click.Option(
            ["--verbose"], is_flag=True, help="Tracebacks of unexpected errors.", **_UNEXPOSED
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            help="Colors; auto means on a terminal without NO_COLOR.",
            **_UNEXPOSED,
        ),
        click.Option(
            ["--socket"],
            metavar="PATH",
            envvar="SNAPSYNC_SOCKET",
            help="The daemon's control socket.  [env: SNAPSYNC_SOCKET]",
            **_UNEXPOSED,
        ),
    ]


class HelpEnding(click.Command):
    """A command that takes the common options, which set the `Context`.

    Its `--help` ends with its examples and the table of exit codes.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(_common_options())
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `--standalone` as a switch too; click would take the next word for its value."""
        if any(parameter.name == "standalone" for parameter in self.params):
            end = args.index("--") if "--" in args else len(args)
            switched = [_STANDALONE_SWITCHES.get(argument, argument) for argument in args[:end]]
            args = switched + args[end:]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are typed, then every exit code with its meaning."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl(
                [(str(int(code)), meaning) for code, meaning in EXIT_CODE_MEANINGS.items()]
            )


def config_option(decorated: Decorated) -> Decorated:
    """Add `--config FILE` for commands that open stores themselves; read by `Context.settings`."""
    return click.option(
        "--config",
        metavar="FILE",
        envvar="SNAPSYNC_CONFIG",
        help="Settings of stores and transfer.  [env: SNAPSYNC_CONFIG]",
        **_UNEXPOSED,
    )(decorated)


def store_option(*, required: bool = True) -> Callable[[Decorated], Decorated]:
    """Add `--store URI`, for which SNAPSYNC_STORE stands in; the parameter is called `store`."""
    return click.option(
        "--store",
        metavar="URI",
        envvar="SNAPSYNC_STORE",
        required=required,
        help="s3://bucket/prefix, gs://bucket/prefix or file:///path.  [env: SNAPSYNC_STORE]",
    )


def reference_store_option(decorated: Decorated) -> Decorated:
    """Add `--store URI` for commands that only resolve references there, called `store`."""
    return click.option(
        "--store",
        metavar="URI",
        envvar="SNAPSYNC_STORE",
        help="Where a reference is looked up; an ID needs none.  [env: SNAPSYNC_STORE]",
    )(decorated)


def id_option(*, required: bool = True) -> Callable[[Decorated], Decorated]:
    """Add `--id ID`, for which SNAPSYNC_ID stands in; the parameter is called `snapshot_id`."""
    return click.option(
        "--id",
        "snapshot_id",
        metavar="ID",
        envvar="SNAPSYNC_ID",
        required=required,
        help="Snapshot ID (64 hexadecimal digits), or a reference to one: NAME@v1.2.0,"
        " NAME@production.  [env: SNAPSYNC_ID]",
    )


def dest_argument(*, required: bool) -> Callable[[Decorated], Decorated]:
    """Add DEST. It may not be empty, as a script's unset variable is: that is no destination."""
    return click.argument("dest", required=required, type=click.Path(), callback=_refuse_empty)


def _refuse_empty(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("it is empty; say . for the working directory.")
    return value


def _read_standalone(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    word = value.strip().lower()
    meant = _SWITCH_WORDS.get(word, word)
    if meant not in ("auto", "always", "never"):
        raise click.BadParameter(f"{value!r} is not one of auto, always, never.")
    return meant


def standalone_option(decorated: Decorated) -> Decorated:
    """Add `--standalone[=auto|always|never]` and `--no-standalone`; SNAPSYNC_STANDALONE stands in.

    The parameter is called `standalone` and holds one of the three words.
    """
    return click.option(
        "--standalone",
        callback=_read_standalone,
        metavar="[=auto|always|never]",
        default="never",
        envvar="SNAPSYNC_STANDALONE",
        help="Pull in this process, without a daemon; auto: only if none runs; --no-standalone:"
        " never.  [env: SNAPSYNC_STANDALONE]",
    )(decorated)


def cache_dir_option(decorated: Decorated) -> Decorated:
    """Add `--cache-dir DIR` beside `standalone_option`; the parameter is called `cache_dir`."""
    return click.option(
        "--cache-dir",
        metavar="DIR",
        envvar="SNAPSYNC_CACHE_DIR",
        help="The cache of a standalone run.  [env: SNAPSYNC_CACHE_DIR]",
    )(decorated)


def timeout_option(decorated: Decorated) -> Decorated:
    """Add `--timeout DURATION`; the parameter is called `timeout`."""
    return click.option(
        "--timeout",
        metavar="DURATION",
        envvar="SNAPSYNC_TIMEOUT",
        help="Give up waiting after this time: 90s, 10m, 2h.  [env: SNAPSYNC_TIMEOUT]",
    )(decorated)


def patience_options(decorated: Decorated) -> Decorated:
    """Add `--wait-for-daemon DURATION` and `--stall-timeout DURATION` beside `timeout_option`."""
    decorated = click.option(
        "--stall-timeout",
        metavar="DURATION",
        envvar="SNAPSYNC_STALL_TIMEOUT",
        help="Give up a pull that does not get on for this time; never if 0 or not given."
        "  [env: SNAPSYNC_STALL_TIMEOUT]",
    )(decorated)
    return click.option(
        "--wait-for-daemon",
        metavar="DURATION",
        envvar="SNAPSYNC_WAIT_FOR_DAEMON",
        help="Wait so long for a daemon that is still starting.  [env: SNAPSYNC_WAIT_FOR_DAEMON]",
    )(decorated)


def verb(
    name: str, *, examples: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function whose first argument is the `Context`.

    The docstring becomes the help. What the function returns is the exit code; None means 0.

        @verb("id", examples=["snapctl id ./dataset"])
        @click.argument("source")
        def command(context: Context, source: str) -> None:
            \"\"\"Print the snapshot ID of a directory.\"\"\"
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        def call_with_context(*args: Any, **options: Any) -> Any:
            context = click.get_current_context().ensure_object(Context)
            return function(context, *args, **options)

        wrapped = update_wrapper(call_with_context, function)
        return click.command(name, cls=HelpEnding, examples=examples)(wrapped)

    return decorate
