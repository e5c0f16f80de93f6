"""Recent batches of the partitions in memory: followers and tailing consumers are served without touching the store.

Invariants: the batches of a tail tile on; a batch that is not yet durable is never evicted, for it is nowhere else.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from penstock.storage import LogBatch

BATCH_OVERHEAD_BYTES = 400
"""What a batch costs beside its payload."""
COMPACT_AT = 256
"""Evicted places at the head of a tail's list before it is shortened."""


class TailBudget:
    """What all tails of a node may hold together. Evicts the oldest batches first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._order: deque[tuple[Tail, int]] = deque()

    def added(self, tail: "Tail", base_offset: int, size: int) -> None:
        """A tail grew."""
        self._order.append((tail, base_offset))
        self._used += size
        while self._used > self._limit and self._order:
            oldest, base = self._order[0]
            if not oldest.evict(base):
                return
            self._order.popleft()

    def removed(self, size: int) -> None:
        """A tail shrank."""
        self._used -= size


class Tail:
    """The newest batches of one partition."""

    def __init__(self, budget: TailBudget, end_offset: int) -> None:
        self._budget = budget
        self._batches: list[LogBatch] = []
        self._head = 0
        self.end_offset = end_offset
        self._durable_end = end_offset

    @property
    def start_offset(self) -> int:
        """First offset held."""
        return self._batches[self._head].base_offset if self._head < len(self._batches) else self.end_offset

    def add(self, batch: LogBatch) -> None:
        """Take a batch at the end."""
        self._batches.append(batch)
        self.end_offset = batch.last_offset + 1
        self._budget.added(self, batch.base_offset, _size(batch))

    def on_durable(self, end_offset: int) -> None:
        """Everything below is in the store."""
        self._durable_end = max(self._durable_end, end_offset)

    def evict(self, base_offset: int) -> bool:
        """Drop the oldest batch if it is the one at `base_offset`; False: it may not go yet."""
        if self._head == len(self._batches) or self._batches[self._head].base_offset != base_offset:
            return True  # gone already
        if self._batches[self._head].last_offset >= self._durable_end:
            return False
        self._budget.removed(_size(self._batches[self._head]))
        self._head += 1
        if self._head >= COMPACT_AT and self._head * 2 >= len(self._batches):
            del self._batches[: self._head]
            self._head = 0
        return True

    def drop_below(self, offset: int) -> None:
        """The batches that end below are others in the store by now: compaction has taken records out of them."""
        while self._head < len(self._batches) and self._batches[self._head].last_offset < offset:
            if not self.evict(self._batches[self._head].base_offset):
                return

    def reset(self, end_offset: int) -> None:
        """Hold nothing; the log ends at `end_offset`."""
        for batch in self._batches[self._head :]:
            self._budget.removed(_size(batch))
        self._batches, self._head = [], 0
        self.end_offset = self._durable_end = end_offset

    def truncate(self, end_offset: int) -> None:
        """The log was cut."""
        while len(self._batches) > self._head and self._batches[-1].base_offset >= end_offset:
            self._budget.removed(_size(self._batches.pop()))
        self.end_offset = min(self.end_offset, end_offset)
        self._durable_end = min(self._durable_end, end_offset)

    def read(self, start: int, end: int, max_bytes: int) -> Sequence[LogBatch] | None:
        """Batches from the one that holds `start` on, below `end`; at least one. None: not held here."""
        if not self.start_offset <= start < min(end, self.end_offset):
            return None
        i = bisect_right(self._batches, start, lo=self._head, key=_base) - 1
        first = i
        size = 0
        while i < len(self._batches) and self._batches[i].base_offset < end:
            size += len(self._batches[i].payload)
            if size > max_bytes and i > first:
                break
            i += 1
        return self._batches[first:i]


def _base(batch: LogBatch) -> int:
    return batch.base_offset


def _size(batch: LogBatch) -> int:
    return len(batch.payload) + BATCH_OVERHEAD_BYTES
