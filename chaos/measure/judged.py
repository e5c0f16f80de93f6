"""Were clients served while they had to be? Pure.

An operation is judged, by the moment and the host of its invocation, unless that lies

- between the beginning of a fault's injection and GRACE_S after its end (leaders are elected anew), whether it was
  injected or failed;
- from when a fault, alone or together with others, left no majority with min_insync replicas until GRACE_S after its
  heal (the nemesis says so in `injected`, again when a later fault takes the majority);
- likewise, from its injection on, for the hosts of clients that the fault cut off.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from penstock.chaos.measure.windows import Fault, Status
from penstock.chaos.measure.writes import Share, Writes

GRACE_S = 5.0
"""After each injection, and after the heal of a fault that left no majority."""

Span = tuple[float, float]
"""From, and up to but without."""


class Judged:
    """Which operations are judged, and how those of a window ended."""

    def __init__(self, writes: Writes, faults: Sequence[Fault]) -> None:
        self._writes = writes
        spans = [_Spans(left_out(faults, host)) for host in writes.hosts]
        pairs = zip(writes.host, writes.invoked, strict=True)
        self._flags = bytearray(not spans[host].holds(invoked) for host, invoked in pairs)

    def within(self, start: float, end: float) -> Share:
        """Count the judged operations that were invoked from `start` on and before `end`."""
        found = Share()
        rows = range(bisect_left(self._writes.invoked, start), bisect_left(self._writes.invoked, end))
        for row in rows:
            if self._flags[row]:
                found.count(self._writes.outcome[row])
        return found


def left_out(faults: Iterable[Fault], host: str) -> list[Span]:
    """Give the times at which the operations of a host are not judged."""
    spans = []
    for fault in (each for each in faults if each.status is not Status.SKIPPED):
        begun = fault.healed if fault.injected is None else fault.injected
        spans.append((fault.inject, begun + GRACE_S))
        if fault.no_majority_from is not None:
            spans.append((fault.no_majority_from, fault.healed + GRACE_S))
        if host in fault.cut_hosts:
            spans.append((fault.inject, fault.healed + GRACE_S))
    return spans


class _Spans:
    """Times, joined and in order."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        for start, end in sorted(spans):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def holds(self, moment: float) -> bool:
        index = bisect_right(self._starts, moment) - 1
        return index >= 0 and moment < self._ends[index]
