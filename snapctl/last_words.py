"""What a failed command leaves for whoever looks at the pod: Kubernetes' termination message."""

from __future__ import annotations

from snapd.model.errors import EXIT_CODE_MEANINGS, SnapsyncError

MESSAGE_MAX_BYTES = 4096
"""The kubelet cuts what is longer."""


def last_words(error: SnapsyncError) -> str:
    """Say what happened, what to do next, and whether a mere restart can help."""
    retry = (
        "Running it again may help: what is verified is kept."
        if error.retryable
        else "Running it again does not help before that."
    )
    lines = [
        f"snapctl: {error.message}",
        f"exit code: {int(error.exit_code)} ({EXIT_CODE_MEANINGS[error.exit_code]}, {error.code})",
        f"next: {error.hint} {retry}" if error.hint else f"next: {retry}",
    ]
    return _cut(lines)


def _cut(lines: list[str]) -> str:
    """Shorten the message of the error, never what to do about it."""
    tail = "\n".join(["", *lines[1:], ""]).encode(errors="replace")[:MESSAGE_MAX_BYTES]
    head = lines[0].encode(errors="replace")
    room = MESSAGE_MAX_BYTES - len(tail)
    if len(head) > room:
        head = head[: max(room - 3, 0)] + b"..."[: max(room, 0)]
    return (head + tail).decode(errors="ignore")


def leave_last_words(path: str, error: SnapsyncError) -> None:
    """Write them to the file that the kubelet reads; a file that can't be written is no error."""
    try:
        with open(path, "w", encoding="utf-8") as target:
            target.write(last_words(error))
    except OSError:
        return
