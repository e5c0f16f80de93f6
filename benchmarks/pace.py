"""What all Python drivers have in common: due times of an open loop, the cut of the warm-up, times and CPU measured.

A Pace belongs to one run and one thread. Record `number` is due at start + number / rate and goes to partition
number mod partitions. It is counted where it is due after the warm-up. All settled records count, however late.
"""

import asyncio
import random
import resource
import time
from collections.abc import AsyncIterator, Callable

from benchmarks.result import Load
from benchmarks.workloads import Workload
from penstock.client.bench.histogram import Histogram

SHORTEST_SLEEP_S = 0.001
"""uvloop's timers step by 1 ms; a shorter sleep spins."""
SETTLE_TIMEOUT_S = 60.0
"""How long after the last due time the last record may be settled."""


def payload(workload: Workload) -> bytes:
    """Give the value of every record: `record_bytes` bytes that do not compress, the same in each run."""
    return random.Random(1).randbytes(workload.record_bytes)  # noqa: S311 - the same each time


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """Time and CPU from `start` to `stop`."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin (anew)."""
        self._cpu_s = cpu_seconds()
        self._began = time.perf_counter()
        self.seconds = self.cpu_s = 0.0

    def stop(self) -> None:
        """End; `seconds` and `cpu_s` are set."""
        self.seconds = time.perf_counter() - self._began
        self.cpu_s = cpu_seconds() - self._cpu_s

    def load(self, workload: Workload, records: int, histogram: Histogram | None = None) -> Load:
        """Give what was measured between start and stop."""
        latency = histogram.to_json() if histogram is not None else []
        return Load(records, records * workload.record_bytes, self.seconds, latency, self.cpu_s)


class Pace:
    """See the module. Asyncio: `async for numbers in pace.turns()`, `settle` from callbacks, then `await finished()`.

    Blocking clients: `begin`, then `take` and `wait_s` in turn until `all_taken`, then wait for `is_finished`.
    """

    def __init__(self, workload: Workload, clock: Callable[[], float] = time.perf_counter) -> None:
        self.workload = workload
        self.histogram = Histogram()
        self.first_counted = round(workload.rate * workload.warm_seconds)
        self.total = self.first_counted + round(workload.rate * workload.seconds)
        self.settled = 0
        self._clock = clock
        self._step_s = 1 / workload.rate
        self._began = 0.0
        self._taken = 0
        self._watch = Stopwatch()
        self._watching = False
        self._error: BaseException | None = None
        self._finished = asyncio.Event()

    def begin(self) -> None:
        """Record 0 is due now."""
        self._began = self._clock()

    def take(self) -> range:
        """Give the numbers that are due and were not given before; may be empty."""
        due = int((self._clock() - self._began) / self._step_s) + 1
        numbers = range(self._taken, min(due, self.total))
        self._taken = max(self._taken, numbers.stop)
        if not self._watching and self._taken > self.first_counted:
            self._watching = True
            self._watch.start()
        return numbers

    def wait_s(self) -> float:
        """Give the time until the next number is due; 0 where it is overdue."""
        return max(0.0, self._began + self._taken * self._step_s - self._clock())

    @property
    def all_taken(self) -> bool:
        """Every number was given out."""
        return self._taken >= self.total

    @property
    def is_finished(self) -> bool:
        """Every record is settled, or one failed."""
        return self._finished.is_set()

    async def turns(self) -> AsyncIterator[range]:
        """Give ranges of due numbers, as time goes on, to the last."""
        self.begin()
        while not self.all_taken:
            if numbers := self.take():
                yield numbers
            await asyncio.sleep(max(SHORTEST_SLEEP_S, self.wait_s()))

    def settle(self, number: int) -> None:
        """This record is acknowledged (or consumed) in the application, now."""
        if number >= self.first_counted:
            late_s = self._clock() - self._began - number * self._step_s
            self.histogram.record(int(late_s * 1e6))
        self.settled += 1
        if self.settled == self.total:
            self._watch.stop()
            self._finished.set()

    def fail(self, error: BaseException) -> None:
        """End the run with this error."""
        self._error = self._error or error
        self._finished.set()

    async def finished(self) -> None:
        """Return when every record is settled. Raises what `fail` was given, TimeoutError after SETTLE_TIMEOUT_S."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await self._finished.wait()
        self.check()

    def check(self) -> None:
        """Raise what `fail` was given."""
        if self._error is not None:
            raise self._error

    def load(self) -> Load:
        """Give what was measured. Time and CPU: from the first counted record's turn to the last settled one."""
        return self._watch.load(self.workload, self.total - self.first_counted, self.histogram)
