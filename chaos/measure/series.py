"""A run over time: what was acknowledged, failed and read in each bin, and how long sends took. Pure.

A write counts in the bin of its completion; one without a completion in that of its invocation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, isnan
from typing import Any

from penstock.chaos.history import Entry
from penstock.chaos.measure.writes import WRITES, Outcome, Writes

BIN_S = 1.0
"""Width of a bin."""
MAX_BINS = 1200
"""Of a series; a longer run has wider bins, each a whole number of BIN_S."""
_SEND = WRITES.index("send")

Counts = dict[str, list[int]]
"""By f, and "all"."""


class Reads:
    """Records read by second; the reading of everything at the end is left out."""

    def __init__(self) -> None:
        self.by_second: dict[int, int] = {}
        self.polls = 0
        self.records = 0

    def feed(self, entry: Entry) -> None:
        """Take a poll."""
        if entry.get("final") or entry["type"] != "ok":
            return
        found = sum(len(read["records"]) for read in entry["reads"])
        second = int(entry["time"] // BIN_S)
        self.by_second[second] = self.by_second.get(second, 0) + found
        self.polls += 1
        self.records += found


@dataclass(frozen=True, slots=True)
class Series:
    """Lists of equal length; bin k is of the times from k · bin_s on. Latencies in ms; None where nothing was sent."""

    bin_s: float
    acked: Counts
    refused: Counts
    failed: Counts
    unknown: Counts
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    max_ms: list[float | None]
    """p50, p99 and max: acknowledged sends, from invocation to completion."""
    records_read: list[int]

    def to_json(self) -> dict[str, Any]:
        """Give all lists by their names."""
        return {name: getattr(self, name) for name in self.__slots__}


def series_of(writes: Writes, reads: Reads, duration_s: float) -> Series:
    """Sort everything into bins."""
    seconds = max(1, ceil(duration_s / BIN_S))
    bin_s = BIN_S * ceil(seconds / MAX_BINS)
    bins = int(duration_s // bin_s) + 1
    latencies = _latencies(writes, bin_s, bins)
    acked, refused, failed, unknown = (_counts(writes, outcome, bin_s, bins) for outcome in Outcome)
    return Series(
        bin_s=bin_s,
        acked=acked,
        refused=refused,
        failed=failed,
        unknown=unknown,
        p50_ms=_each(latencies, lambda found: percentile(found, 50)),
        p99_ms=_each(latencies, lambda found: percentile(found, 99)),
        max_ms=_each(latencies, lambda found: found[-1]),
        records_read=_read(reads, bin_s, bins),
    )


def percentile(ordered: list[float], percent: int) -> float:
    """Give the nearest-rank percentile of numbers in ascending order; there must be one."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _counts(writes: Writes, wanted: Outcome, bin_s: float, bins: int) -> Counts:
    by_f = [[0] * bins for _ in WRITES]
    for f, outcome, invoked, completed in zip(writes.f, writes.outcome, writes.invoked, writes.completed, strict=True):
        if outcome == wanted:
            by_f[f][int((invoked if isnan(completed) else completed) // bin_s)] += 1
    total = [sum(column) for column in zip(*by_f, strict=True)]
    return {"all": total, **{name: counts for name, counts in zip(WRITES, by_f, strict=True) if any(counts)}}


def _latencies(writes: Writes, bin_s: float, bins: int) -> list[list[float]]:
    found: list[list[float]] = [[] for _ in range(bins)]
    for f, outcome, invoked, completed in zip(writes.f, writes.outcome, writes.invoked, writes.completed, strict=True):
        if f == _SEND and outcome == Outcome.ACKED:
            found[int(completed // bin_s)].append((completed - invoked) * 1000)
    for latencies in found:
        latencies.sort()
    return found


def _each(bins: Iterable[list[float]], of: Callable[[list[float]], float]) -> list[float | None]:
    return [round(of(found), 3) if found else None for found in bins]


def _read(reads: Reads, bin_s: float, bins: int) -> list[int]:
    found = [0] * bins
    for second, records in reads.by_second.items():
        found[int(second * BIN_S // bin_s)] += records
    return found
