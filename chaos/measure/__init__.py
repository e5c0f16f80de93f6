"""What a run measured: the share acknowledged, the series over time, and availability and recovery for each fault.

Pure: entries of a history in, numbers out; correctness is judged in `chaos.checker`. Each module says how its numbers
are defined.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isinf
from typing import Any

from penstock.chaos.history import Entry
from penstock.chaos.measure.aims import Aim, Availability, aims_of, availability_of
from penstock.chaos.measure.judged import Judged
from penstock.chaos.measure.recovery import Recovery, recoveries
from penstock.chaos.measure.series import Reads, Series, series_of
from penstock.chaos.measure.windows import Episode, Fault, Faults, Status, episodes
from penstock.chaos.measure.writes import METADATA_WRITES, RECORD_WRITES, WRITES, Outcome, Share, Writes

__all__ = ["Aim", "Availability", "Fault", "FaultMeasure", "Measures", "Recovery", "Series", "Share", "measure"]

LOAD_ENDS = "stopping"
"""The phase in which clients begin no more operations."""


@dataclass(frozen=True, slots=True)
class FaultMeasure:
    """A fault, and how the cluster stood it."""

    fault: Fault
    availability: Availability
    recovery: Recovery
    """That of the whole disturbance, where faults overlapped."""

    def to_json(self) -> dict[str, Any]:
        """Give the fields; times that are not there are null."""
        window = asdict(self.fault) | {"healed": None if isinf(self.fault.healed) else self.fault.healed}
        return {**window, "availability": self.availability.to_json(), "recovery": asdict(self.recovery)}


@dataclass(frozen=True, slots=True)
class Measures:
    """All numbers of a run. Times in seconds since it began."""

    duration_s: float
    """Time of the last entry."""
    load: tuple[float, float]
    """From the first send's or append's invocation to the phase LOAD_ENDS; without it, to their last invocation."""
    phases: tuple[tuple[str, float], ...]
    records: Share
    """Sends and appends."""
    metadata: Share
    """Changes of topics."""
    hosts: dict[str, Share]
    """Sends and appends by the clients' hosts."""
    by_f: dict[str, Share]
    judged: Share
    """All writes that had to be served: see `judged`."""
    polls: int
    records_read: int
    faults: tuple[FaultMeasure, ...]
    aims: tuple[Aim, ...]
    series: Series

    def to_json(self) -> dict[str, Any]:
        """Give everything but the aims, which stand in the verdict beside it."""
        return {
            "duration_s": self.duration_s,
            "load": list(self.load),
            "phases": [{"name": name, "time": time} for name, time in self.phases],
            "records": self.records.to_json(),
            "metadata": self.metadata.to_json(),
            "hosts": {host: found.to_json() for host, found in sorted(self.hosts.items())},
            "by_f": {f: found.to_json() for f, found in self.by_f.items()},
            "judged": self.judged.to_json(),
            "polls": self.polls,
            "records_read": self.records_read,
            "faults": [found.to_json() for found in self.faults],
            "series": self.series.to_json(),
        }


def measure(history: Iterable[Entry]) -> Measures:
    """Measure a history in one pass over it."""
    gathered = _Gathered()
    for entry in history:
        gathered.feed(entry)
    return gathered.result()


class _Gathered:
    """The columns of a history that are measured."""

    def __init__(self) -> None:
        self.writes = Writes()
        self.reads = Reads()
        self.faults = Faults()
        self.phases: list[tuple[str, float]] = []
        self.end = 0.0

    def feed(self, entry: Entry) -> None:
        f, self.end = entry["f"], max(self.end, entry["time"])
        if f in WRITES:
            self.writes.feed(entry)
        elif f == "poll":
            self.reads.feed(entry)
        elif f == "fault":
            self.faults.feed(entry)
        elif f == "phase":
            self.phases.append((entry["name"], self.end))

    def result(self) -> Measures:
        load = self._load()
        faults, judged = self.faults.result(), Judged(self.writes, self.faults.result())
        served = [(fault, availability_of(fault, judged.within(fault.inject, fault.healed))) for fault in faults]
        found = episodes(faults)
        back = list(zip(found, recoveries(_acks(self.writes), load, found), strict=True))
        overall = judged.within(0.0, self.end + 1)
        by_f = _shares(self.writes, self.writes.f, WRITES)
        records = bytes(WRITES[f] in RECORD_WRITES for f in self.writes.f)
        return Measures(
            duration_s=self.end,
            load=load,
            phases=tuple(self.phases),
            records=_sum(by_f, RECORD_WRITES),
            metadata=_sum(by_f, METADATA_WRITES),
            hosts=_shares(self.writes, self.writes.host, self.writes.hosts, records),
            by_f=by_f,
            judged=overall,
            polls=self.reads.polls,
            records_read=self.reads.records,
            faults=tuple(FaultMeasure(fault, found, _of(fault, back)) for fault, found in served),
            aims=aims_of(overall, served, back),
            series=series_of(self.writes, self.reads, self.end),
        )

    def _load(self) -> tuple[float, float]:
        rows = zip(self.writes.f, self.writes.invoked, strict=True)
        times = [invoked for f, invoked in rows if f < len(RECORD_WRITES)] or [0.0]
        ends = (time for name, time in self.phases if name == LOAD_ENDS)
        return times[0], next(ends, times[-1])


def _acks(writes: Writes) -> list[float]:
    """Give the times at which records' writes were acknowledged, ascending."""
    columns = zip(writes.f, writes.outcome, writes.completed, strict=True)
    return sorted(at for f, outcome, at in columns if outcome == Outcome.ACKED and f < len(RECORD_WRITES))


def _shares(
    writes: Writes, keys: Sequence[int], names: Sequence[str], counted: bytes | None = None
) -> dict[str, Share]:
    """Count the outcomes of the rows (those that `counted` marks) by one of the columns."""
    found: dict[int, Share] = {}
    for row, (key, outcome) in enumerate(zip(keys, writes.outcome, strict=True)):
        if counted is None or counted[row]:
            found.setdefault(key, Share()).count(outcome)
    return {name: found[key] for key, name in enumerate(names) if key in found}


def _sum(by_f: dict[str, Share], names: Iterable[str]) -> Share:
    found = [by_f[name] for name in names if name in by_f]
    return Share(
        acked=sum(share.acked for share in found),
        failed=sum(share.failed for share in found),
        unknown=sum(share.unknown for share in found),
        refused=sum(share.refused for share in found),
    )


def _of(fault: Fault, back: Iterable[tuple[Episode, Recovery]]) -> Recovery:
    found = (result for episode, result in back if any(fault.id == each.id for each in episode.faults))
    return next(found, Recovery(None, None, "not injected" if fault.status is Status.SKIPPED else ""))
