"""Which runs are made, in which order, and how long they will take. Pure.

In each repeat each system gets a fresh cluster, one after the other; Penstock and the ceiling are next to each other,
in an order that changes from repeat to repeat. Within a system the workloads keep their order, but those of very many
partitions come last: the topics of a cluster stay, and idle partitions have a price of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.summary import CEILING, PRODUCT
from benchmarks.workloads import Workload

MANY_PARTITIONS = 100
QUICK_LEFT_OUT = {
    "small-rf1-leader": "a weaker promise",
    "small-rf3-leader": "a weaker promise",
    "one-1k": "much like one-100b",
    "batch-256k": "lies between its neighbours",
    "tail-5k": "much like open-5k",
}
"""What `make bench` leaves out, to end in time, and why that is missed least."""
START_S = 8.0
"""First guess of what a cluster takes to start and stop."""
RUN_S = {"throughput": 8.0, "open_loop": 10.0, "series": 9.0, "consume": 10.0, "tail": 10.0}
"""First guess of what a workload takes in its short form, by its kind: a little more than it does."""
FULL_FACTOR = 2.2
"""Full form to short form."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A fresh cluster of a system, and what it does."""

    repeat: int
    system: str
    workloads: tuple[Workload, ...]


def turns(systems: Sequence[str], chosen: Sequence[Workload], repeats: int) -> list[Turn]:
    """Plan all."""
    ordered = tuple(sorted(chosen, key=lambda workload: workload.partitions > MANY_PARTITIONS))
    return [Turn(repeat, system, ordered) for repeat in range(1, repeats + 1) for system in order_of(systems, repeat)]


def order_of(systems: Sequence[str], repeat: int) -> list[str]:
    """Give the order of the systems in a repeat."""
    pair = [PRODUCT, CEILING] if repeat % 2 else [CEILING, PRODUCT]
    return [name for name in pair if name in systems] + [name for name in systems if name not in pair]


class Estimate:
    """How much time is left. Learns from what was seen."""

    def __init__(self, plan: Sequence[Turn], *, short: bool) -> None:
        self._left = [(turn.system, workload) for turn in plan for workload in turn.workloads]
        self._starts = [turn.system for turn in plan]
        self._factor = 1.0 if short else FULL_FACTOR
        self._seen: dict[str, float] = {}
        """Seconds by workload, and by system for its start: the last ones."""

    def started(self, system: str, seconds: float) -> None:
        """A cluster was started, or (0) is not needed."""
        self._starts.remove(system)
        if seconds:
            self._seen[system] = seconds

    def done(self, system: str, workload: Workload, seconds: float | None) -> None:
        """A workload was done, or (None) passed over."""
        self._left.remove((system, workload))
        if seconds is not None:
            self._seen[workload.name] = seconds

    def dropped(self, system: str) -> None:
        """A system is not available."""
        self._left = [(name, workload) for name, workload in self._left if name != system]
        self._starts = [name for name in self._starts if name != system]

    def of(self, workload: Workload) -> float:
        """Give the seconds that a workload is expected to take."""
        return self._seen.get(workload.name, RUN_S[workload.kind] * self._factor)

    @property
    def left_s(self) -> float:
        """Seconds."""
        runs = sum(self.of(workload) for _, workload in self._left)
        return runs + sum(self._seen.get(name, START_S) for name in self._starts)
