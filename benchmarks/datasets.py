"""The datasets of the benchmarks: many tiny files, many small ones, a few large ones."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Dataset:
    """`files` files of `bytes_min` to `bytes_max` bytes, in directories of a thousand."""

    name: str
    files: int
    bytes_min: int
    bytes_max: int

    def scaled(self, divisor: int) -> Dataset:
        """Make a smaller one for daily use."""
        return Dataset(self.name, max(2, self.files // divisor), self.bytes_min, self.bytes_max)

    def make(self, directory: Path) -> Path:
        """Write the files once; the same bytes every time."""
        done = directory / f"{self.name}-{self.files}"
        if done.exists():
            return done
        chooser = random.Random(self.name)
        partial = directory / f"{self.name}.partial"
        for number in range(self.files):
            path = partial / f"d{number // 1000:03}" / f"f{number:06}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            size_bytes = chooser.randint(self.bytes_min, self.bytes_max)
            with path.open("wb") as file:
                while size_bytes > 0:
                    file.write(chooser.randbytes(min(size_bytes, BLOCK_BYTES)))
                    size_bytes -= BLOCK_BYTES
        partial.rename(done)
        return done


T = Dataset("T", 20_000, 2 * 1024, 6 * 1024)
S = Dataset("S", 10_000, 60 * 1024, 160 * 1024)
L = Dataset("L", 8, 256 * 1024 * 1024, 256 * 1024 * 1024)
ALL = (T, S, L)
