"""What this process has used of the machine: processor time, memory, and since when (two system calls); its store."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from penstock.node.clock import monotonic_ms
from penstock.storage.room import RoomState
from penstock.v1 import common_pb2

STORE_STATES = {
    RoomState.OK: common_pb2.STORE_STATE_OK,
    RoomState.NEARLY_FULL: common_pb2.STORE_STATE_NEARLY_FULL,
    RoomState.FULL: common_pb2.STORE_STATE_FULL,
}
_STATM = Path("/proc/self/statm")
_BEGAN_MS = monotonic_ms()
"""When this module was loaded, a moment after the process began."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Taken at one moment."""

    cpu_time_ms: int
    """Of all threads since the process began, user and system."""
    resident_bytes: int
    """At this moment on Linux; elsewhere the most that it ever was."""
    uptime_ms: int

    @classmethod
    def now(cls) -> Self:
        """Take it."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_time_ms = round((used.ru_utime + used.ru_stime) * 1000)
        return cls(cpu_time_ms, _resident_bytes(used.ru_maxrss), monotonic_ms() - _BEGAN_MS)


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """What the store has used, as it was last looked at; sizes in bytes."""

    used_bytes: int
    """By rows, live ones and those that wait to be deleted; appends are refused when that is the capacity."""
    capacity_bytes: int
    disk_bytes: int
    """That the store's file takes."""
    free_bytes: int
    """That its file system has left."""
    state: "common_pb2.StoreState.ValueType"
    retention_paused: bool
    """Nothing is dropped by time: the node's clock is not to be trusted (rule 30)."""


def _resident_bytes(most: int) -> int:
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:  # not Linux
        return most if sys.platform == "darwin" else most * 1024
    return pages * os.sysconf("SC_PAGESIZE")
