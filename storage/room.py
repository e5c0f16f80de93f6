"""How much the store may still take. Appends are refused before the file system is full, so that all else goes on."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.storage.errors import StoreFullError

if TYPE_CHECKING:
    from penstock.storage.env import Environment

_log = logging.getLogger(__name__)

OVERHEAD = 1.15
"""File size over pages in use: pages that wait to be used again (measured: 1.13)."""
RECOUNT_BYTES = 1024 * 1024
"""The pages in use are counted again after this much was appended."""
REFRESH_BYTES = 16 * 1024 * 1024
"""The file system is asked again after this much was appended."""
WARN_SHARE = 0.85
CALM_SHARE = 0.75
"""The next warning is due only after the share was below this."""
EXHAUSTED_BYTES = 1024 * 1024


class Room:
    """Compares the pages in use with the limit: the operator's, or what the file system leaves less a reserve."""

    def __init__(self, environment: "Environment") -> None:
        self._environment = environment
        self._capacity = self._measure()
        self._unmeasured = 0
        self._used = 0
        self._uncounted = RECOUNT_BYTES
        self._warned = False

    def _measure(self) -> int:
        options = self._environment.options
        fits = self._environment.disk_bytes() + self._environment.free_bytes() - options.reserve_bytes
        limit = min(fits, options.map_bytes)
        return min(limit, options.limit_bytes) if options.limit_bytes else limit

    def check(self, appended: int, count_used: Callable[[], int]) -> None:
        """Raise StoreFullError when so many bytes more do not fit beside those in use, which `count_used` counts."""
        self._unmeasured += appended
        self._uncounted += appended
        self._used += appended
        if self._uncounted >= RECOUNT_BYTES or self._needed > self._capacity:
            self._used = count_used() + appended
            self._uncounted = 0
        if self._unmeasured >= REFRESH_BYTES or self._needed > self._capacity:
            self._capacity = self._measure()
            self._unmeasured = 0
        self._warn()
        if self._needed > self._capacity:
            text = f"the store at {self._environment.path} is full: it needs {self._needed} of {self._capacity} bytes"
            raise StoreFullError(f"{text}; delete or trim topics, or give it more room")

    @property
    def _needed(self) -> int:
        return int(self._used * OVERHEAD)

    def share_used(self) -> float:
        """Share of the capacity in use as of the last append, 0 to 1 and above; see WARN_SHARE."""
        return self._needed / max(1, self._capacity)

    def is_exhausted(self) -> bool:
        """Whether the file system has no room left at all, so that a failed commit means just that."""
        return self._environment.free_bytes() < EXHAUSTED_BYTES

    def _warn(self) -> None:
        """Say it once when the store is nearly full, and once more after it was not."""
        share = self.share_used()
        if share >= WARN_SHARE and not self._warned:
            self._warned = True
            percent = round(100 * share)
            _log.warning("the store at %s uses %d %% of its room; appends end at 100", self._environment.path, percent)
        elif share < CALM_SHARE:
            self._warned = False
