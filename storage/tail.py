"""The end of the data file, behind the pages that LMDB has used: how long it is, and how much of it is really there.

The file is kept longer than its pages, so that one that was cut short can be told. The first part of what lies behind
them, the ballast, is allocated on the file system: whatever others do to that, deleting always finds blocks, since
appends are refused long before (`room`). Allocated, not written: ADR 18 has what that costs a commit.
"""

import errno
import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)

AHEAD_BYTES = 64 * 1024 * 1024
"""The file is longer than its pages by half of this at least; beyond the ballast as a hole that takes no room."""
SMALL_SHARE = 8
"""Ballast and reserve each take no more than this part of a file system."""


class Tail:
    """Of one data file. `keep` belongs to the thread that commits."""

    def __init__(self, file: Path, ballast_bytes: int) -> None:
        self.file = file
        self.ballast_bytes = ballast_bytes
        self._length = file.stat().st_size
        self._allocated = 0
        """Up to here, counted from the pages in use on, the blocks are there; 0: not known yet."""
        self._failed = False

    def keep(self, needed: int, *, retry: bool = False) -> bool:
        """Follow the pages, which need so many bytes now. False: there is no room for the ballast.

        Once there was none it is tried again only with `retry`.
        """
        if self._length - needed < AHEAD_BYTES // 2:
            self._length = max(self.file.stat().st_size, needed + AHEAD_BYTES)
            os.truncate(self.file, self._length)
        if self._allocated - needed < self.ballast_bytes // 2 and (retry or not self._failed):
            self._failed = not self._allocate(needed)
        return not self._failed

    def _allocate(self, needed: int) -> bool:
        if not self.ballast_bytes:
            return True
        start = max(needed, self._allocated)
        descriptor = os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._check_room(needed + self.ballast_bytes)
            os.posix_fallocate(descriptor, start, needed + self.ballast_bytes - start)
        except OSError as error:
            if not self._failed:
                _log.warning("the ballast of %s cannot be allocated: %s", self.file, error)
            return False
        finally:
            os.close(descriptor)
        self._allocated = needed + self.ballast_bytes
        self._length = max(self._length, self._allocated)
        return True

    def _check_room(self, wanted: int) -> None:
        """A file system may give all that it has before it says that this is not enough: others need it."""
        stats = os.statvfs(self.file)
        missing = wanted - self.file.stat().st_blocks * 512
        if missing > stats.f_bavail * stats.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def small_share(path: Path, wanted_bytes: int) -> int:
    """Return so many bytes, or less where the file system of `path` is small."""
    stats = os.statvfs(path)
    return min(wanted_bytes, stats.f_blocks * stats.f_frsize // SMALL_SHARE)
