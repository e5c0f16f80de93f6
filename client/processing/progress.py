"""How far a partition is done, while its records are worked on in any order. Pure.

Invariant: every record below `position` is done, so that committing it loses none; the record at `position` is not done
or has not been taken. A record that is never done (dropped, failed, lost) holds the position for ever.
"""

from collections import deque
from collections.abc import Hashable

from penstock.client.records import CommitPoint, Record, TopicPartition


class Work:
    """One record on its way through a handler."""

    __slots__ = ("attempts", "begun_ms", "done", "lane", "progress", "record", "running")

    def __init__(self, record: Record, progress: "Progress", lane: Hashable) -> None:
        self.record = record
        self.progress = progress
        self.lane: Hashable = self if lane is None else lane
        """Records of one lane come one after the other; without one it is alone in its own."""
        self.attempts = 0
        """Times that the handler was called."""
        self.begun_ms = 0
        """When it was called last."""
        self.running = False
        self.done = False


class Progress:
    """One stay of a partition with its consumer: a partition that was away, or sought, has a new one."""

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.is_lost = False
        """The partition is not the consumer's any more: nothing is committed."""
        self.is_ending = False
        """It is to be given up: no record is taken any more."""
        self.is_cut = False
        """No handler is called for it any more."""
        self.open_works = 0
        """Records that wait or run; those that were dropped do not count."""
        self.moved_ms = 0
        """When `position` moved last."""
        self.last_begun = -1
        """Highest offset whose handler was called."""
        self._works: deque[Work] = deque()
        self._point: CommitPoint | None = None
        self._committed: CommitPoint | None = None

    @property
    def window(self) -> int:
        """Records taken from `position` on, done or not."""
        return len(self._works)

    @property
    def position(self) -> int | None:
        """Offset up to which all is done; None where no record was taken yet."""
        if self._works:
            return self._works[0].record.offset
        return self._point.offset if self._point is not None else None

    def take(self, record: Record, lane: Hashable, now_ms: int) -> Work:
        """Take the next record. Offsets rise (see `is_next`)."""
        if not self._works:
            self.moved_ms = now_ms
        work = Work(record, self, lane)
        self._works.append(work)
        self.open_works += 1
        return work

    def is_next(self, offset: int) -> bool:
        """Say whether this offset is behind all that were taken; it is not after a seek backwards."""
        if self._works:
            return offset > self._works[-1].record.offset
        return self._point is None or offset >= self._point.offset

    def finish(self, work: Work, now_ms: int) -> None:
        """The record is done."""
        work.done = True
        self.open_works -= 1
        while self._works and self._works[0].done:
            record = self._works.popleft().record
            self._point = CommitPoint(record.offset + 1, record.leader_epoch)
            self.moved_ms = now_ms

    def give_up(self) -> None:
        """A record will not be done: it was dropped or failed."""
        self.open_works -= 1

    @property
    def to_commit(self) -> CommitPoint | None:
        """What is done and not committed."""
        return None if self._point == self._committed else self._point

    def committed(self, point: CommitPoint) -> None:
        """It is durable."""
        self._committed = point
