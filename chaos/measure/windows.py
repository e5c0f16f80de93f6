"""The faults of a history: when each was there, and which of them belong together because they overlap. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

from penstock.chaos.history import Entry


class Status(StrEnum):
    """How a fault ended."""

    HEALED = "healed"
    OPEN = "open"
    """Injected, and not healed when the history ended."""
    FAILED = "failed"
    """Could not be injected or healed."""
    SKIPPED = "skipped"
    """Cannot be done here."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One injection. Times in seconds since the run began."""

    id: Any
    fault: str
    status: Status
    detail: str
    """What was done to whom; the reason, of one that failed or was skipped."""
    inject: float
    """Its injection began; when it was skipped."""
    injected: float | None
    healed: float
    """The end of its window; inf while it is open."""
    params: dict[str, Any] = field(default_factory=dict)
    nodes: tuple[int, ...] = ()
    no_majority_from: float | None = None
    """From when on no majority with min_insync replicas was left; None where there always was one."""
    cut_hosts: tuple[str, ...] = ()
    hit: bool | None = None
    evidence: str = ""

    def overlaps(self, other: "Fault") -> bool:
        """Were both there at one time?"""
        return self.inject < other.healed and other.inject < self.healed


@dataclass(frozen=True, slots=True)
class Episode:
    """Faults that overlap, as one disturbance."""

    start: float
    healed: float
    faults: tuple[Fault, ...]


class Faults:
    """Gathers the entries of each fault. Of a phase that is told again, the first one says when, the last one what."""

    def __init__(self) -> None:
        self._phases: dict[Any, dict[str, Entry]] = {}
        self._no_majority: dict[Any, float] = {}

    def feed(self, entry: Entry) -> None:
        """Take an entry whose `f` is `fault`."""
        phases = self._phases.setdefault(entry["id"], {})
        again = phases.get(entry["phase"])
        phases[entry["phase"]] = entry if again is None else entry | {"time": again["time"]}
        if entry.get("majority") is False:
            self._no_majority.setdefault(entry["id"], entry["time"])

    def result(self) -> tuple[Fault, ...]:
        """Give the faults in the order of their injection."""
        found = (_fault(phases, self._no_majority.get(number)) for number, phases in self._phases.items())
        return tuple(sorted(found, key=lambda fault: fault.inject))


def episodes(faults: Iterable[Fault]) -> list[Episode]:
    """Join faults that overlap; those that were never there are left out. `faults` in the order of injection."""
    found: list[Episode] = []
    for fault in faults:
        if fault.status is Status.SKIPPED:
            continue
        if found and fault.inject < found[-1].healed:
            last = found.pop()
            found.append(Episode(last.start, max(last.healed, fault.healed), (*last.faults, fault)))
        else:
            found.append(Episode(fault.inject, fault.healed, (fault,)))
    return found


def _fault(phases: dict[str, Entry], no_majority_from: float | None) -> Fault:
    status = _status(phases)
    known: Entry = {}
    for entry in phases.values():
        known |= {name: value for name, value in entry.items() if value is not None}
    injected = phases.get("injected")
    return Fault(
        id=known["id"],
        fault=str(known.get("fault", "")),
        status=status,
        detail=_detail(phases, status),
        inject=min(entry["time"] for entry in phases.values()),
        injected=None if injected is None else injected["time"],
        healed=_end(phases, status),
        params=known.get("params") or {},
        nodes=tuple(known.get("nodes", ())),
        no_majority_from=no_majority_from,
        cut_hosts=tuple(known.get("cut_hosts", ())),
        hit=known.get("hit"),
        evidence=str(known.get("evidence", "")),
    )


def _status(phases: dict[str, Entry]) -> Status:
    for phase, status in (("skipped", Status.SKIPPED), ("failed", Status.FAILED), ("healed", Status.HEALED)):
        if phase in phases:
            return status
    return Status.OPEN


def _detail(phases: dict[str, Entry], status: Status) -> str:
    """Prefer the phase that knows best: why it was not done; else what was done."""
    for phase in (str(status), "injected", "inject") if status in _NOT_DONE else ("injected", "inject", "healed"):
        if phases.get(phase, {}).get("detail"):
            return str(phases[phase]["detail"])
    return ""


_NOT_DONE = (Status.SKIPPED, Status.FAILED)


def _end(phases: dict[str, Entry], status: Status) -> float:
    """A fault whose injection failed is gone by then; one whose heal failed stays, unless a later heal succeeded."""
    if "healed" in phases:
        return float(phases["healed"]["time"])
    if status is Status.SKIPPED or (status is Status.FAILED and "injected" not in phases):
        return float(phases[str(status)]["time"])
    return inf
