"""Large blocks that are free are not part of the process any more."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys, threading
from snapd.runtime.allocation import return_large_blocks

return_large_blocks()
return_large_blocks()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def churn():
    # Each freed block would be followed by a smaller one that keeps the heap from shrinking.
    for _ in range(8):
        blocks.append(bytes(8 << 20))
        blocks.append(bytes(200_000))

blocks = []
before = resident()
for _ in range(8):
    thread = threading.Thread(target=churn)
    thread.start()
    thread.join()
    blocks[:] = [block for block in blocks if len(block) < 1 << 20]
print(resident() - before)
"""


def test_large_blocks_are_given_back_whoever_freed_them() -> None:
    grown = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(grown.stdout) < 32 << 20
