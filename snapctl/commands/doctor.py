"""`snapctl doctor`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from snapctl.context import Context
from snapctl.doctor import examine
from snapctl.frame import config_option, verb
from snapctl.output import Output
from snapd.model.checks import Check, exit_code_of

_WORDS = {"ok": "ok", "warning": "WARNING", "failure": "FAILURE"}


@verb("doctor", examples=["snapctl doctor", "snapctl doctor --json"])
@click.option(
    "--cache-dir",
    metavar="DIR",
    envvar="SNAPSYNC_CACHE_DIR",
    help="The state directory to look at if no daemon answers.  [env: SNAPSYNC_CACHE_DIR]",
)
@config_option
def command(context: Context, cache_dir: str | None) -> int:
    """Look at everything that a pull on this node needs, and say what to do about what is wrong.

    One line a check: socket, daemon, stores with credentials and clock, disk, file system, limits.
    It works without a daemon and then says less. The exit code is that of the first failure; with
    warnings alone it is 0.
    """
    checks = examine(context, cache_dir)
    code = exit_code_of(checks)
    if context.output.as_json:
        counts = {word: sum(check.verdict == word for check in checks) for word in _WORDS}
        document = {"exit_code": code, **counts, "checks": [check.to_json() for check in checks]}
        context.output.print_json(document)
    else:
        _print(context.output, checks)
    return code


def _print(output: Output, checks: Sequence[Check]) -> None:
    for check in checks:
        output.line(f"{_WORDS[check.verdict]:<8}{check.name}: {check.message}")
        if check.hint and check.verdict != "ok":
            output.line(f"{'':<8}-> {check.hint}")
