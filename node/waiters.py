"""Appends that wait to be answered, of one partition. No future for each: a deque, emptied from the left as the
watched offset passes.

Invariant: thresholds do not fall from left to right, so what waits is answered in the order it came.
"""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
NEVER_MS = 1 << 62


class _Waiter(NamedTuple, Generic[T]):
    """`end_offset`: what the append itself needs; `threshold`: when its turn comes."""

    threshold: int
    end_offset: int
    deadline_ms: int
    item: T


class Waiters(Generic[T]):
    """What waits for one offset to pass. Hands the items back; answering them is the caller's."""

    def __init__(self) -> None:
        self._queue: deque[_Waiter[T]] = deque()
        self._earliest_ms = NEVER_MS

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, end_offset: int, deadline_ms: int, item: T) -> None:
        """Wait until the offset reaches `end_offset`, behind those already waiting."""
        threshold = max(end_offset, self._queue[-1].threshold) if self._queue else end_offset
        self._queue.append(_Waiter(threshold, end_offset, deadline_ms, item))
        self._earliest_ms = min(self._earliest_ms, deadline_ms)

    def reached(self, offset: int) -> list[T]:
        """Take out all whose turn has come."""
        queue = self._queue
        items = []
        while queue and queue[0].threshold <= offset:
            items.append(queue.popleft().item)
        return items

    def expired(self, now_ms: int) -> list[T]:
        """Take out those past their deadline."""
        if now_ms < self._earliest_ms:
            return []
        late = [waiter.item for waiter in self._queue if waiter.deadline_ms <= now_ms]
        self._queue = deque(waiter for waiter in self._queue if waiter.deadline_ms > now_ms)
        self._earliest_ms = min((waiter.deadline_ms for waiter in self._queue), default=NEVER_MS)
        return late

    def above(self, offset: int) -> list[T]:
        """Take out those that need more than `offset`, as it will not come to that; the others wait on."""
        queue, self._queue = self._queue, deque()
        self._earliest_ms = NEVER_MS
        taken = []
        for waiter in queue:
            if waiter.end_offset > offset:
                taken.append(waiter.item)
            else:
                self.add(waiter.end_offset, waiter.deadline_ms, waiter.item)
        return taken

    def drain(self, offset: int) -> tuple[list[T], list[T]]:
        """Take out all: those that `offset` satisfies, and those that it does not."""
        queue, self._queue = self._queue, deque()
        self._earliest_ms = NEVER_MS
        reached = [waiter.item for waiter in queue if waiter.end_offset <= offset]
        return reached, [waiter.item for waiter in queue if waiter.end_offset > offset]
