"""The clocks of simulated processes, in place of the machine's while a world runs."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pysyncobj.syncobj as library

import penstock.node.clock
from tests.simulation.kernel.scheduler import Scheduler

EPOCH_S = 1_700_000_000
"""Wall time at which virtual time is 0."""


class ProcessTime:
    """What `node.clock` takes for the module `time`: the clocks of the process whose loop runs."""

    def __init__(self) -> None:
        self.skew_s: dict[str, float] = {}
        """By how much a host's wall clock is wrong; a jump changes it."""

    def monotonic_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    def time_ns(self) -> int:
        loop = asyncio.get_running_loop()
        name: str = getattr(loop, "name", "")
        return int((EPOCH_S + loop.time() + self.skew_s.get(name, 0.0)) * 1e9)


@contextlib.contextmanager
def in_place(time: ProcessTime, scheduler: Scheduler) -> Iterator[None]:
    """Let nodes and consensus read virtual time."""
    clock: Any = penstock.node.clock
    former = library.monotonicTime, clock.time
    library.monotonicTime = lambda: scheduler.now
    clock.time = time
    try:
        yield
    finally:
        library.monotonicTime, clock.time = former
