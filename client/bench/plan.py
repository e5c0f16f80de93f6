"""What one producer of a bench has to do: how much, when each record is due, where it goes. Pure.

Times are nanoseconds of the monotonic clock, which the processes of one machine share.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from penstock.client.options import ProducerOptions
from penstock.client.partitioner import partition_of_key

NS = 1_000_000_000
MIN_STAMPED_BYTES = 16
"""Least size of a record that carries its due time (payload.STAMP_BYTES)."""
RECORD_MEMORY = 1024
"""More than a record takes of the producer's memory beside its value."""


class PlanError(ValueError):
    """The options do not fit together; the message says how."""


@dataclass(frozen=True, slots=True)
class Phase:
    """How much of the work is to be done: whatever comes first. Of a producer's plan exactly one is given."""

    seconds: float | None = None
    records: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one producer, or of all of them before it is shared out."""

    topic: str
    partitions: int
    record_bytes: int
    """Of a record's value."""
    phase: Phase
    """What is measured."""
    rate: float | None = None
    """Records a second, due at their times whatever happens; None: as fast as the producer takes them."""
    warmup_s: float = 0.0
    """The same work before, not measured."""
    keys: int = 0
    """How many different keys the records have in turn; 0: records without a key."""
    compressible: bool = False
    run_id: str = ""
    """8 bytes in hex: each value begins with them and the time at which it was due. Empty: it does not."""
    options: ProducerOptions = field(default_factory=ProducerOptions)
    producer: int = 0
    producers: int = 1

    def check(self) -> None:
        """Raise PlanError where the options do not fit together."""
        if (self.phase.seconds is None) == (self.phase.records is None):
            raise PlanError("give a duration or a number of records, not both")
        if self.phase.records is not None and self.phase.records < self.producers:
            raise PlanError(f"{self.producers} producers cannot share {self.phase.records} records")
        if self.run_id and self.record_bytes < MIN_STAMPED_BYTES:
            raise PlanError(f"records of at least {MIN_STAMPED_BYTES} bytes are needed: each carries its due time")
        memory = self.options.get("buffer_bytes")
        if memory is not None and memory < self.record_bytes + RECORD_MEMORY:
            raise PlanError(f"memory of {memory} bytes does not hold a record of {self.record_bytes} bytes")

    def share(self, producer: int) -> "Plan":
        """Give the part of one of the producers; all parts together are the whole."""
        share = replace(self, producer=producer, rate=None if self.rate is None else self.rate / self.producers)
        records = self.phase.records
        return share if records is None else replace(share, phase=replace(self.phase, records=share.part_of(records)))

    def part_of(self, records: int) -> int:
        """How many of all producers' records are this one's, as they take turns."""
        return records // self.producers + (self.producer < records % self.producers)

    def due_records(self, phase: Phase) -> int:
        """How many records of a phase are due. Only of a share with a rate."""
        if phase.records is not None:
            return phase.records
        return self.part_of(max(1, round((phase.seconds or 0) * (self.rate or 0) * self.producers)))

    def schedule(self, start_ns: int) -> "Schedule":
        """When records are due from `start_ns` on. Producers take turns. Only with a rate."""
        rate = self.rate or 1.0
        return Schedule(start_ns + int(self.producer * NS / (rate * self.producers)), rate)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Plan":
        """From `to_json`."""
        return cls(**{**content, "phase": Phase(**content["phase"])})


class Schedule(NamedTuple):
    """Record i is due at start + i / rate."""

    start_ns: int
    rate: float

    def due(self, now_ns: int) -> int:
        """How many records are due by now."""
        return int((now_ns - self.start_ns) * self.rate / NS) + 1 if now_ns >= self.start_ns else 0

    def due_ns(self, index: int) -> int:
        """When a record is due."""
        return self.start_ns + int(index * NS / self.rate)


class Spread:
    """Where the records of a producer go, in turn; and which record is the n-th of a partition.

    So the due time of what was acknowledged is known without keeping anything for each record: a partition's records
    are settled in the order in which they were sent.
    """

    def __init__(self, partitions: int, keys: Sequence[bytes] = (), first: int = 0) -> None:
        """With keys record i has key i mod their number; without, it goes to partition first + i mod partitions."""
        self.keys: Sequence[bytes | None] = keys or (None,)
        self.partitions: Sequence[int | None]
        """Of record i: number i mod their number; None: the client chooses by key."""
        if keys:
            self.partitions = (None,)
            turns = [partition_of_key(key, partitions) for key in keys]
        else:
            turns = [(first + index) % partitions for index in range(partitions)]
            self.partitions = turns
        self._turns = len(turns)
        self._slots: list[list[int]] = [[] for _ in range(partitions)]
        for slot, partition in enumerate(turns):
            self._slots[partition].append(slot)

    def indexes(self, partition: int, done: int, count: int) -> Sequence[int]:
        """Indexes of the next `count` records of a partition of which `done` are settled."""
        slots = self._slots[partition]
        size, turns = len(slots), self._turns
        if size == 1:
            return range(slots[0] + done * turns, slots[0] + (done + count) * turns, turns)
        return [n // size * turns + slots[n % size] for n in range(done, done + count)]
