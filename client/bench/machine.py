"""What a bench takes from the machine: the clock, what this process has used, and a garbage collector that waits."""

import gc
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

GC_THRESHOLD = 50_000
"""Objects made before the collector looks for cycles: a producing process makes many that live for a moment."""
_STATM = Path("/proc/self/statm")

now_ns = time.monotonic_ns
"""One clock for all processes of the machine."""


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What a process has used."""

    cpu_s: float
    """Of all threads, user and system."""
    resident_bytes: int
    """At the end on Linux; elsewhere the most that it ever was."""

    @classmethod
    def now(cls) -> Self:
        """Take that of this process so far."""
        return cls(time.process_time(), _resident_bytes())

    def since(self, before: "ProcessUsage") -> "ProcessUsage":
        """Give what was used between two moments."""
        return ProcessUsage(self.cpu_s - before.cpu_s, self.resident_bytes)


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:  # not Linux
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


@contextmanager
def patient_gc() -> Iterator[None]:
    """Let the garbage collector look only every GC_THRESHOLD objects, which is worth a third of the throughput."""
    before = gc.get_threshold()
    gc.set_threshold(GC_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
