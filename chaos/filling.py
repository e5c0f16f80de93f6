"""Filling a file system to the last block.

Owns one file in its root. Blocks are reserved, not written: a full disk costs the machine's own disk nothing.
"""

import errno
import os
from pathlib import Path

FILLING = "filling"
"""The file."""
ATTEMPTS = 200
"""Others write and delete meanwhile."""


def fill(root: Path, leave_bytes: int) -> int:
    """Reserve all but `leave_bytes` (to a block); what is left then. Raises OSError for anything but a full disk."""
    file = os.open(root / FILLING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(ATTEMPTS):
            left, block = _left(file)
            wanted = (left - leave_bytes) // block * block
            if wanted <= 0:
                break
            _grow(file, wanted, block)
        os.fsync(file)
        return _left(file)[0]
    finally:
        os.close(file)


def _left(file: int) -> tuple[int, int]:
    stats = os.fstatvfs(file)
    return stats.f_bavail * stats.f_frsize, stats.f_frsize


def _grow(file: int, wanted: int, block: int) -> None:
    """Reserve so much more; where it does not fit (a file system needs some for itself), as much as does."""
    step = wanted
    while step >= block:
        try:
            os.posix_fallocate(file, os.fstat(file).st_size, step)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            step //= 2
        else:
            return
