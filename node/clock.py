"""The node's clocks. Cores never read them: shells pass `now_ms` in."""

import asyncio
import time


def monotonic_ms() -> int:
    """Milliseconds that never go back; for sessions, timeouts and lag."""
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    """Milliseconds since the Unix epoch; for record timestamps only."""
    return time.time_ns() // 1_000_000


def loop_s() -> float:
    """Seconds on the running event loop's monotonic clock; for deadlines of waits on it."""
    return asyncio.get_running_loop().time()


async def occasion(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for an event that is set, too, when the time is over: for loops that clear it and look at everything.

    So nobody else waits for the same event: whoever did not clear it would wait no more.

    It costs less than a timeout, which cancels the task, and it can swallow no cancellation.
    """
    timer = None if timeout_s is None else asyncio.get_running_loop().call_later(timeout_s, event.set)
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
