"""The SHA-256 of a file, as lock files are compared by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from snapd.model.errors import UsageError


def hash_of(path: Path) -> str:
    """Give `sha256:` and the hash of a file; raises `UsageError` naming what can't be read."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise UsageError(f"can't read {str(path)!r}: {error.strerror}") from error
