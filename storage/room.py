"""How much the store may still take, and what state that is. Appends are refused before the file system is full.

Capacity is what the file has of the disk and what the file system has left, less reserve and ballast (`tail`), or the
operator's limit where that is less. So it falls when others fill the disk, and what deleting frees counts at once, with
the file system as full as it may be.

    state         begins                                            ends
    OK            below the watermark by a tenth
    NEARLY_FULL   at the watermark
    FULL          an append does not fit; or others took the room   below RESUME_SHARE
"""

import logging
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from penstock.storage.errors import StoreFullError

if TYPE_CHECKING:
    from penstock.storage.env import Environment

_log = logging.getLogger(__name__)

OVERHEAD = 1.15
"""File size over pages in use: pages that wait to be used again (measured: 1.13)."""
RECOUNT_BYTES = 1024 * 1024
"""The pages in use are counted again after this much was appended."""
REFRESH_BYTES = 16 * 1024 * 1024
"""The file system is asked again after this much was appended, on a small one after a part of the ballast."""
CALM_BELOW = 0.10
"""NEARLY_FULL ends when the share is below the watermark by this."""
RESUME_SHARE = 0.95
"""FULL ends when the share is below this."""
EXHAUSTED_BYTES = 1024 * 1024


class RoomState(IntEnum):
    """How full the store is."""

    OK = 1
    NEARLY_FULL = 2
    FULL = 3


class RoomFigures(NamedTuple):
    """In bytes, as they were last looked at."""

    used: int
    """By rows, live ones and those that wait to be deleted, as the capacity counts it."""
    capacity: int
    disk: int
    """What the data file takes of the disk, its ballast included."""
    free: int
    """What the file system has left."""


class Room:
    """Compares the pages in use with the capacity. `state` and `figures` may be read from any thread."""

    def __init__(self, environment: "Environment") -> None:
        self.state = RoomState.OK
        self._environment = environment
        self._watermark = environment.options.nearly_full_share
        self._refresh_bytes = min(REFRESH_BYTES, environment.tail.ballast_bytes // 4) or REFRESH_BYTES
        self._disk = self._free = 0
        self._capacity = self._measure()
        self._unmeasured = 0
        self._used = 0
        self._uncounted = RECOUNT_BYTES
        self._ran_out = False
        """A commit failed, and there is no ballast since: FULL until it is there again, or much was deleted."""

    def _measure(self) -> int:
        environment, options = self._environment, self._environment.options
        self._disk, self._free = environment.disk_bytes(), environment.free_bytes()
        fits = self._disk + self._free - environment.reserve_bytes - environment.tail.ballast_bytes
        limit = max(0, min(fits, options.map_bytes))
        return min(limit, options.limit_bytes) if options.limit_bytes else limit

    @property
    def figures(self) -> RoomFigures:
        """What `broker list` shows."""
        return RoomFigures(self._needed, self._capacity, self._disk, self._free)

    def check(self, appended: int, count_used: Callable[[], int]) -> None:
        """Raise StoreFullError when so many bytes more do not fit beside those in use, which `count_used` counts."""
        self._unmeasured += appended
        self._uncounted += appended
        self._used += appended
        if self._uncounted < RECOUNT_BYTES and self._unmeasured < self._refresh_bytes and self._is_easy():
            return
        self.look(count_used, appended)
        if self.state is RoomState.FULL or self._needed > self._capacity:
            self._used -= appended
            text = f"the store at {self._environment.path} is full: it needs {self._needed} of {self._capacity} bytes"
            raise StoreFullError(f"{text}; delete or trim topics, or give it more room")

    def _is_easy(self) -> bool:
        return self.state is not RoomState.FULL and self._needed <= self._capacity and self._environment.has_ballast

    def look(self, count_used: Callable[[], int], appended: int = 0) -> None:
        """Count and measure anew, and say what state that is. The thread that commits; every second or so."""
        self._used = count_used()
        self._uncounted = self._unmeasured = 0
        self._capacity = self._measure()
        share = self.share_used()
        self._used += appended
        self._ran_out &= not self._environment.has_ballast and share >= self._watermark - CALM_BELOW
        self._become(self._state_at(share, fits=self._needed <= self._capacity))

    def exhausted(self) -> None:
        """A commit failed for lack of room."""
        self._ran_out = True
        self._capacity = self._measure()
        self._become(RoomState.FULL)

    def _state_at(self, share: float, *, fits: bool) -> RoomState:
        if self._ran_out or share > 1.0 or (share >= RESUME_SHARE and (not fits or self.state is RoomState.FULL)):
            return RoomState.FULL
        above = self._watermark if self.state is RoomState.OK else self._watermark - CALM_BELOW
        return RoomState.NEARLY_FULL if share >= above else RoomState.OK

    @property
    def _needed(self) -> int:
        return int(self._used * OVERHEAD)

    def share_used(self) -> float:
        """Share of the capacity in use, 0 to 1 and above."""
        return self._needed / max(1, self._capacity)

    def is_exhausted(self) -> bool:
        """Whether the file system has no room left at all, so that a failed commit means just that."""
        return self._environment.free_bytes() < EXHAUSTED_BYTES

    def _become(self, state: RoomState) -> None:
        """Say each change once."""
        former, self.state = self.state, state
        if former is state:
            return
        path, percent = self._environment.path, round(100 * self.share_used())
        if state is RoomState.OK:
            _log.warning("the store at %s has room again: %d %% of its room are used", path, percent)
        elif state is RoomState.NEARLY_FULL:
            again = " again" if former is RoomState.FULL else ""
            text = "the store at %s takes appends%s and uses %d %% of its room; appends end at 100"
            _log.warning(text, path, again, percent)
        else:
            text = "the store at %s is full: appends are refused; %d of %d bytes are used, its file system has %d left"
            _log.error(text, path, self._needed, self._capacity, self._free)
