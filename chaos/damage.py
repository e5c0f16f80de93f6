"""Damage to files at rest: bits that flipped, an end that is gone.

Touches only bytes that were really written: files of a store are mostly holes and reserves, and damage there would be
none. Nobody may have the files open. All choices come from the given random numbers.
"""

import errno
import os
import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PAGE_BYTES = 4096
FLIPPED_PAGES = (1, 4, 24)
"""So many pages get one flipped bit each: many are found at once, one may lie where nobody looks for long."""
PAGES_MAX = 1 << 18
"""Pages of one file that are looked at: the first GiB of what was written."""
CUT_SHARES = (0.2, 0.9)
"""A file is cut within this share of what was written to it."""


class Damage(StrEnum):
    """What happens to a file."""

    BIT_FLIPS = "bit-flips"
    TRUNCATION = "truncation"


@dataclass(frozen=True, slots=True)
class Damaged:
    """What was done, for the report."""

    path: Path
    detail: str
    count: int
    """Bits that flipped, or bytes that are gone; 0: nothing was done."""


def damage(path: Path, how: Damage, rng: random.Random) -> Damaged:
    """Damage one file, durably. Raises OSError."""
    with path.open("r+b") as file:
        pages = _written_pages(file.fileno())
        done = (_flip if how is Damage.BIT_FLIPS else _cut)(file.fileno(), pages, rng)
        os.fsync(file.fileno())
    return Damaged(path, done[0], done[1])


def _written_pages(file: int) -> list[int]:
    """Numbers of the pages that hold anything but zeros."""
    pages: list[int] = []
    size, at = os.fstat(file).st_size, 0
    while at < size and len(pages) < PAGES_MAX:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        at = os.lseek(file, begin, os.SEEK_HOLE)
        numbers = range(begin // PAGE_BYTES, -(-at // PAGE_BYTES))
        pages += [
            number for number in numbers[:PAGES_MAX] if os.pread(file, PAGE_BYTES, number * PAGE_BYTES).strip(b"\0")
        ]
    return pages


def _flip(file: int, pages: list[int], rng: random.Random) -> tuple[str, int]:
    chosen = sorted(rng.sample(pages, min(rng.choice(FLIPPED_PAGES), len(pages))))
    for number in chosen:
        page = os.pread(file, PAGE_BYTES, number * PAGE_BYTES)
        at = rng.choice([index for index, byte in enumerate(page) if byte])  # what is zero may be nobody's
        os.pwrite(file, bytes([page[at] ^ (1 << rng.randrange(8))]), number * PAGE_BYTES + at)
    return f"{len(chosen)} of {len(pages)} written pages have a flipped bit", len(chosen)


def _cut(file: int, pages: list[int], rng: random.Random) -> tuple[str, int]:
    written = (pages[-1] + 1) * PAGE_BYTES if pages else 0
    size = int(written * rng.uniform(*CUT_SHARES))
    os.ftruncate(file, size)
    return f"cut to {size} of {written} written bytes", written - size
