"""Time behind a seam: the client's cores are given `now_ms`, its shells ask a Clock, and a simulator brings its own."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where the client's shells get time from."""

    def monotonic_ms(self) -> int:
        """Milliseconds from a fixed but arbitrary point, for deadlines. Goes on while the machine sleeps.

        So that a member of a group that has slept knows that others may have its partitions.
        """

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch, for the timestamps of records."""

    async def sleep_ms(self, duration_ms: float) -> None:
        """Return when `duration_ms` have passed."""


_COUNTS_SLEEP: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""Linux has the first, on macOS the second counts it; elsewhere time.monotonic does what it can."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_ms(self) -> int:
        """See Clock."""
        now_ns = time.monotonic_ns() if _COUNTS_SLEEP is None else time.clock_gettime_ns(_COUNTS_SLEEP)
        return now_ns // 1_000_000

    def wall_ms(self) -> int:
        """See Clock."""
        return time.time_ns() // 1_000_000

    async def sleep_ms(self, duration_ms: float) -> None:
        """See Clock."""
        await asyncio.sleep(duration_ms / 1000)
