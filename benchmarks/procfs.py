"""CPU time and memory of processes, as Linux tells them in /proc. Never touches a process."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_FIELDS = {"VmRSS": "rss", "RssAnon": "rss_anon", "RssFile": "rss_file", "VmHWM": "rss_peak"}


class Usage(NamedTuple):
    """Of one process, all its threads. Memory in bytes."""

    cpu_s: float
    """User and system time since it began."""
    rss: int
    """Resident, with the pages of mapped files: of an LMDB environment these are the page cache's, seen twice."""
    rss_anon: int
    """Its own: heap and stacks."""
    rss_file: int
    rss_peak: int


def usage(pid: int, proc: Path = PROC) -> Usage:
    """Read the present figures. Raises ProcessLookupError where the process is gone."""
    try:
        stat, status = (proc / str(pid) / "stat").read_text(), (proc / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"process {pid} is gone") from None
    memory = dict.fromkeys(_FIELDS.values(), 0)
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in _FIELDS:
            memory[_FIELDS[name]] = int(value.split()[0]) * 1024
    # The program's name, in parentheses, may hold spaces; behind it utime and stime are the 12th and 13th fields.
    fields = stat.rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), **memory)


def usages(pids: Mapping[str, int]) -> dict[str, Usage]:
    """`usage` of each, by the same names. Raises ProcessLookupError where one is gone, naming it."""
    found = {}
    for name, pid in pids.items():
        try:
            found[name] = usage(pid)
        except ProcessLookupError as error:
            raise ProcessLookupError(f"{name}: {error}") from None
    return found
