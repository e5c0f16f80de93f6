"""Wait until servers have come to rest: what they do after a workload must not be counted to the next."""

import time
from collections.abc import Callable, Mapping

from benchmarks.procfs import Usage, usages

QUIET_SHARE = 0.05
"""Of a core, for each server on average. An idle JVM takes about 2 %."""
STEP_S = 0.5
TIMEOUT_S = 15.0


def wait_quiet(
    pids: Mapping[str, int],
    read: Callable[[Mapping[str, int]], Mapping[str, Usage]] = usages,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait, at most TIMEOUT_S; whether they came to rest. Raises ProcessLookupError where one is gone."""
    began, used = clock(), _cpu_s(read(pids))
    last = began
    while last - began < TIMEOUT_S:
        sleep(STEP_S)
        now, more = clock(), _cpu_s(read(pids))
        if more - used < QUIET_SHARE * len(pids) * (now - last):
            return True
        last, used = now, more
    return False


def _cpu_s(found: Mapping[str, Usage]) -> float:
    return sum(usage.cpu_s for usage in found.values())
