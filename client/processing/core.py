"""Decides what process() does next: which record begins, what may be taken, paused, committed, given up. Pure.

Invariants: a record begins once its lane is free and its partition is held; what is committed of a partition is below
every record of it that is not done; the records from the commit position on, done or not, are bounded: by
`max_in_flight` over all partitions, and by as many again for each one that was set aside.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from penstock.client.processing.lanes import Lanes
from penstock.client.processing.progress import Progress, Work
from penstock.client.records import CommitPoint, Record, TopicPartition

STALL_MS = 2_000
"""A partition whose commit position stood for so long, and that has its share of the window, is set aside."""


class Limits(NamedTuple):
    """See `Consumer.process`."""

    max_in_flight: int
    keyless: Literal["partition", "any"]


class ProcessingCore:
    """See the module."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes = Lanes()
        self._progress: dict[TopicPartition, Progress] = {}
        self._running: dict[Work, None] = {}
        self._aside: dict[TopicPartition, None] = {}
        """Paused: so many of its records wait for one that no room would be left for other partitions."""

    # -- records in, records through

    def add(self, records: Iterable[Record], now_ms: int) -> None:
        """Take records, as they come from the consumer."""
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            progress = self._progress.get(partition)
            if progress is None or not progress.is_next(record.offset):
                self.lose([partition])  # sought backwards: what is under way belongs to the time before
                progress = self._progress[partition] = Progress(partition)
            if not progress.is_ending:
                self._lanes.add(progress.take(record, self._lane(record), now_ms))

    def next(self, now_ms: int) -> Work | None:
        """Give the record whose handler is to be called now."""
        work = self._lanes.take(now_ms)
        if work is not None:
            work.progress.last_begun = max(work.progress.last_begun, work.record.offset)
            work.attempts += 1
            work.begun_ms = now_ms
            self._running[work] = None
        return work

    def finish(self, work: Work, now_ms: int) -> None:
        """The record is done: processed, skipped or in the dead-letter topic."""
        self._end(work)
        work.progress.finish(work, now_ms)

    def postpone(self, work: Work, due_ms: int) -> None:
        """The record is tried again at `due_ms`, unless no handler is called for its partition any more."""
        del self._running[work]
        if work.progress.is_cut:
            self._lanes.finish(work)
            work.progress.give_up()
        else:
            self._lanes.postpone(work, due_ms)

    def give_up(self, work: Work) -> None:
        """Of a record that is under way still: it will not be done, and nothing from it on is committed."""
        if work in self._running:
            self._end(work)
            work.progress.give_up()

    def _end(self, work: Work) -> None:
        del self._running[work]
        self._lanes.finish(work)

    def _lane(self, record: Record) -> Hashable:
        if record.key is None and self._limits.keyless == "any":
            return None
        return record.topic, record.partition, record.key

    @property
    def has_ready(self) -> bool:
        """A record could begin at once."""
        return self._lanes.has_ready

    @property
    def next_due_ms(self) -> int | None:
        """When the next record that is tried again is due."""
        return self._lanes.next_due_ms

    @property
    def running(self) -> Sequence[Work]:
        """Records whose handlers run."""
        return list(self._running)

    @property
    def oldest_begun_ms(self) -> int | None:
        """When the handler was called that runs longest."""
        return next(iter(self._running)).begun_ms if self._running else None

    # -- the window

    @property
    def room(self) -> int:
        """How many records may be taken."""
        taken = sum(progress.window for partition, progress in self._progress.items() if partition not in self._aside)
        return self._limits.max_in_flight - taken

    @property
    def in_flight(self) -> int:
        """Records taken and not below their partition's commit position."""
        return sum(progress.window for progress in self._progress.values())

    def set_aside(self, now_ms: int, assigned: int) -> list[TopicPartition]:
        """Give partitions to pause, as others would starve behind them; `assigned`: how many the consumer has."""
        if self.room > 0 or assigned < 2:
            return []
        share = self._share(assigned)
        stalled = [
            partition
            for partition, progress in self._progress.items()
            if partition not in self._aside and progress.window >= share and now_ms - progress.moved_ms >= STALL_MS
        ]
        self._aside.update(dict.fromkeys(stalled))
        return stalled

    def take_back(self, assigned: int) -> list[TopicPartition]:
        """Give partitions to resume."""
        low = self._share(assigned) // 2
        ready = [partition for partition in self._aside if self._progress[partition].window <= low]
        for partition in ready:
            del self._aside[partition]
        return ready

    def _share(self, assigned: int) -> int:
        return max(1, self._limits.max_in_flight // max(1, assigned))

    # -- giving partitions up

    def drain(self, partitions: Iterable[TopicPartition]) -> None:
        """Begin no more of these than makes what was begun a whole: later records are dropped."""
        for progress in self._of(partitions):
            progress.is_ending = True
        self._drop(lambda work: work.progress.is_ending and work.record.offset > work.progress.last_begun)

    def cut(self, partitions: Iterable[TopicPartition]) -> None:
        """Begin no more of these at all."""
        for progress in self._of(partitions):
            progress.is_ending = progress.is_cut = True
        self._drop(lambda work: work.progress.is_cut)

    def is_drained(self, partitions: Iterable[TopicPartition]) -> bool:
        """Say whether nothing of these runs or waits."""
        return not any(progress.open_works for progress in self._of(partitions))

    def lose(self, partitions: Sequence[TopicPartition]) -> list[Work]:
        """These are not the consumer's any more: drop and commit nothing; gives what runs all the same."""
        lost = self._of(partitions)
        self.cut(partitions)
        for progress in lost:
            progress.is_lost = True
            del self._progress[progress.partition]
            self._aside.pop(progress.partition, None)
        return [work for work in self._running if work.progress in lost]

    def _drop(self, unwanted: Callable[[Work], bool]) -> None:
        for work in self._lanes.drop(unwanted):
            work.progress.give_up()

    def _of(self, partitions: Iterable[TopicPartition]) -> list[Progress]:
        return [self._progress[partition] for partition in partitions if partition in self._progress]

    @property
    def partitions(self) -> Sequence[TopicPartition]:
        """Those of which records were taken."""
        return list(self._progress)

    # -- commits

    def to_commit(self, partitions: Iterable[TopicPartition] | None = None) -> dict[TopicPartition, CommitPoint]:
        """Give what is done and not committed."""
        chosen = self._progress.values() if partitions is None else self._of(partitions)
        points = {progress.partition: progress.to_commit for progress in chosen}
        return {partition: point for partition, point in points.items() if point is not None}

    def committed(self, points: Mapping[TopicPartition, CommitPoint]) -> None:
        """These are durable."""
        for partition, point in points.items():
            if partition in self._progress:
                self._progress[partition].committed(point)

    def positions(self) -> dict[TopicPartition, int]:
        """Give where reading has to go on after process(): the first record of each partition that is not done."""
        found = {partition: progress.position for partition, progress in self._progress.items()}
        return {partition: position for partition, position in found.items() if position is not None}
