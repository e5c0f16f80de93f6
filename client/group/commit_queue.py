"""Which offsets are committed next: one request at a time, what comes meanwhile is merged into the next. Pure.

Invariants: of each partition the latest commit is the one that counts, in the order in which they were added; every
commit added is settled exactly once, in that order; sequences rise.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.client.errors import BufferFullError
from penstock.client.records import CommitPoint, TopicPartition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

MAX_WAITING = 10_000
"""Commits that may wait for the request under way, before more that nobody waits for are refused."""
Offsets: TypeAlias = Mapping[TopicPartition, CommitPoint]
OnSettled: TypeAlias = Callable[[dict[TopicPartition, PenstockError]], None]
"""Called with the partitions that failed."""


@dataclass(frozen=True, slots=True)
class _Entry:
    offsets: Offsets
    on_settled: OnSettled
    errors: dict[TopicPartition, PenstockError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommitBatch:
    """A request: what is left of it shrinks while it is repeated."""

    sequence: int
    left: dict[TopicPartition, CommitPoint]
    entries: list[_Entry]


class CommitQueue:
    """See the module."""

    def __init__(self) -> None:
        self._sequence = 0
        self._waiting: list[_Entry] = []
        self._batch: CommitBatch | None = None

    def __bool__(self) -> bool:
        """Something is not settled yet."""
        return bool(self._waiting) or self._batch is not None

    def add(self, offsets: Offsets, on_settled: OnSettled) -> None:
        """Commit these. Those that nobody waits for need `check_room` before; others bound themselves."""
        self._waiting.append(_Entry(dict(offsets), on_settled))

    def check_room(self) -> None:
        """BufferFullError where too many commits wait already."""
        if len(self._waiting) >= MAX_WAITING:
            raise BufferFullError(Reason.OVERLOADED, f"{MAX_WAITING} commits wait for the one under way")

    def take(self) -> CommitBatch | None:
        """Begin the next request; None where there is nothing, or one is under way."""
        if self._batch is not None or not self._waiting:
            return None
        self._sequence += 1
        left: dict[TopicPartition, CommitPoint] = {}
        for entry in self._waiting:
            left |= {p: point for p, point in entry.offsets.items() if p not in entry.errors}
        self._batch = CommitBatch(self._sequence, left, self._waiting)
        self._waiting = []
        return self._batch

    def settle(self, results: Mapping[TopicPartition, PenstockError | None]) -> None:
        """These of the request under way are done; with the last one, its commits are settled."""
        batch = self._batch
        if batch is None:
            return
        for partition, error in results.items():
            if batch.left.pop(partition, None) is not None and error is not None:
                _fail(batch.entries, partition, error)
        if not batch.left:
            self._batch = None
            for entry in batch.entries:
                entry.on_settled(entry.errors)

    def drop(self, partitions: Iterable[TopicPartition], why: PenstockError) -> None:
        """The member has these no more: what is not committed of them never will be."""
        gone = list(partitions)
        for partition in gone:
            _fail(self._waiting, partition, why)
        self.settle(dict.fromkeys(gone, why))


def _fail(entries: Iterable[_Entry], partition: TopicPartition, error: PenstockError) -> None:
    for entry in entries:
        if partition in entry.offsets:
            entry.errors.setdefault(partition, error)
