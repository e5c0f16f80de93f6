"""The node's two clocks. Cores never read them: shells pass `now_ms` in."""

import time


def monotonic_ms() -> int:
    """Milliseconds that never go back; for sessions, timeouts and lag."""
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    """Milliseconds since the Unix epoch; for record timestamps only."""
    return time.time_ns() // 1_000_000
