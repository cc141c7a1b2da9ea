"""Memory that is given back when it is free."""

from __future__ import annotations

import ctypes

from snapd.model.settings import MIB

_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Have each block of a mebibyte and more mapped on its own, so that it is gone once it is free.

    From the first such block that is freed on the C library takes them from the heaps of its
    threads instead, and what one thread has freed there another can't use: parts of 8 MiB that go
    from thread to thread leave several times the memory behind that they need. For the whole
    process; another C library than GNU's is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MIB)
