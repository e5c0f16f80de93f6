"""How much the store may still take. Appends are refused before the file system is full, so that all else goes on."""

import os
from typing import TYPE_CHECKING

from penstock.storage.errors import StoreFullError

if TYPE_CHECKING:
    from penstock.storage.env import Environment

OVERHEAD = 1.2
"""File size over live data: keys, page rounding, and pages that wait to be used again (measured: 1.13)."""
REFRESH_BYTES = 16 * 1024 * 1024
"""The file system is asked again after this much was appended."""
WARN_SHARE = 0.85
EXHAUSTED_BYTES = 1024 * 1024


class Room:
    """Compares the live data with the limit: the operator's, or what the file system leaves less a reserve."""

    def __init__(self, environment: "Environment") -> None:
        self._environment = environment
        self._live_bytes = 0
        self._capacity = self._measure()
        self._unmeasured = 0

    def _measure(self) -> int:
        options = self._environment.options
        fits = self._environment.file_bytes() + self._environment.free_bytes() - options.reserve_bytes
        limit = min(fits, options.map_bytes)
        return min(limit, options.limit_bytes) if options.limit_bytes else limit

    def count(self, live_bytes: int) -> None:
        """Set the size of all live and not yet deleted data."""
        self._live_bytes = live_bytes

    def check(self, appended: int) -> None:
        """Raise StoreFullError when so many bytes more do not fit."""
        self._unmeasured += appended
        needed = int((self._live_bytes + appended) * OVERHEAD)
        if self._unmeasured >= REFRESH_BYTES or needed > self._capacity:
            self._capacity = self._measure()
            self._unmeasured = 0
        if needed > self._capacity:
            text = f"the store at {self._environment.path} is full: it holds about {needed} of {self._capacity} bytes"
            raise StoreFullError(f"{text}; delete or trim topics, or give it more room")

    def share_used(self) -> float:
        """Share of the capacity in use, 0 to 1 and above; a warning is due from WARN_SHARE on."""
        return self._live_bytes * OVERHEAD / max(1, self._capacity)

    def is_exhausted(self) -> bool:
        """Whether the file system has no room left at all, so that a failed commit means just that."""
        stats = os.statvfs(self._environment.path)
        return stats.f_bavail * stats.f_frsize < EXHAUSTED_BYTES
