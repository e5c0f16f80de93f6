"""Where a consumer stands in one partition, and the check of what a leader sends. Pure.

Invariants: what is accepted tiles the log from the fetch offset on, without a gap; leader epochs never go down; each
batch's CRC is right (unless not asked for). `position` is the next offset to be given out, never ahead of what the
application has been given; `fetch_offset` is the next one expected from the leader.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import length_hint

from penstock.client.errors import LogDamagedError
from penstock.client.fetched import FetchedBatch
from penstock.client.records import Record, TopicPartition
from penstock.protocol.errors import PenstockError
from penstock.v1 import consumer_service_pb2

NO_EPOCH = -1
FAULT_MEMORY_MS = 60_000
"""Faults further apart are not in a row."""


class Cursor:
    """See the module."""

    def __init__(self, topic_id: bytes, partition: TopicPartition, position: int) -> None:
        self.topic_id = topic_id
        self.partition = partition
        self.fetch_offset = position
        self.last_epoch = NO_EPOCH
        """Leader epoch of the batch before `fetch_offset`; NO_EPOCH where none was read."""
        self._given_epoch = NO_EPOCH
        """The same of the batch before `position`."""
        self.leader_epoch = NO_EPOCH
        """Highest leadership seen."""
        self.high_watermark = -1
        self.last_stable_offset = -1
        self.log_start_offset = -1
        self.paused = False
        self.stopped = False
        """There was an error; a seek starts it again."""
        self.error: PenstockError | None = None
        """Which one, for the application."""
        self.above_end = 0
        """Times in a row that the leader said that its log ends before `fetch_offset`."""
        self._faults = 0
        """Times in a row that the server failed at this partition, with no batch between."""
        self._last_fault_ms = 0
        self._fetched: deque[FetchedBatch] = deque()
        self._current: FetchedBatch | None = None
        """The batch that was opened last: its records are given out one by one."""
        self._records: list[Record] = []
        """Of that batch, all."""
        self.left: Iterator[Record] = iter(self._records)
        """Those not given out yet: whoever takes one has been given it. Used up where they are dropped."""
        self._begin = self._end = position
        """Position before the first of `_records`, and once all are given out."""

    @property
    def position(self) -> int:
        """The next offset to be given out."""
        left = length_hint(self.left)
        if not left:
            return self._end
        given = len(self._records) - left
        return self._records[given - 1].offset + 1 if given else self._begin

    @property
    def given_epoch(self) -> int | None:
        """Leader epoch of what stands before `position`, where it is known."""
        return None if self._given_epoch == NO_EPOCH else self._given_epoch

    def expect_after(self, epoch: int) -> None:
        """Nothing was read yet: a record of this leader epoch stands before the position."""
        self.last_epoch = self._given_epoch = epoch

    def again(self, position: int) -> "Cursor":
        """Give another one in its place that begins at `position`, paused or stopped as this one is."""
        cursor = Cursor(self.topic_id, self.partition, position)
        if position == self.position and self._given_epoch != NO_EPOCH:
            cursor.expect_after(self._given_epoch)
        cursor.leader_epoch, cursor.paused, cursor.stopped = self.leader_epoch, self.paused, self.stopped
        return cursor

    @property
    def has_data(self) -> bool:
        """There is something to give out."""
        return bool(self._fetched) or length_hint(self.left) > 0

    def is_stale(self, consumed: consumer_service_pb2.ConsumedPartition) -> bool:
        """Say whether this comes from a leadership lower than one already seen (DESIGN rule 12)."""
        return consumed.leader_epoch < self.leader_epoch

    def accept(self, consumed: consumer_service_pb2.ConsumedPartition, source: object, *, check_crc: bool) -> None:
        """Take what a leader sent; raises LogDamagedError for what breaks an invariant, and takes nothing of it."""
        batches = []
        expected, epoch = self.fetch_offset, self.last_epoch
        for index, stored in enumerate(consumed.batches):
            batch = FetchedBatch(self.partition, stored, expected, source)
            begins_well = batch.base_offset == expected or (index == 0 and batch.base_offset < expected)
            if not begins_well or batch.last_offset < max(expected, batch.base_offset):
                raise batch.damaged(f"offset {expected} was to come next")
            if batch.leader_epoch < epoch:
                raise batch.damaged(f"leader epoch {batch.leader_epoch} after {epoch}")
            if check_crc:
                batch.check_crc()
            expected, epoch = batch.last_offset + 1, batch.leader_epoch
            batches.append(batch)
        self._fetched.extend(batches)
        self.fetch_offset, self.last_epoch = expected, epoch
        self.leader_epoch = consumed.leader_epoch
        self.high_watermark = consumed.high_watermark
        self.last_stable_offset = consumed.last_stable_offset
        self.log_start_offset = consumed.log_start_offset
        self.above_end = 0
        if batches:
            self._faults = 0

    def count_fault(self, now_ms: int) -> int:
        """Count a fault of the server; gives how many there were in a row."""
        if now_ms - self._last_fault_ms > FAULT_MEMORY_MS:
            self._faults = 0
        self._last_fault_ms = now_ms
        self._faults += 1
        return self._faults

    def take_batch(self) -> tuple[FetchedBatch | None, FetchedBatch | None]:
        """Give out the next whole batch, or what is left of one given out in part; and the batch that is done with."""
        first = next(self.left, None)
        if first is not None and self._current is not None:
            left = self._current.from_offset(first.offset)
            self._stand_at(left.last_offset + 1)
            return left, None
        if not self._fetched:
            return None, None
        batch = self._fetched.popleft()
        self._stand_at(batch.last_offset + 1)
        self._given_epoch = batch.leader_epoch
        return batch, batch

    def take(self, count: int) -> tuple[list[Record], list[FetchedBatch]]:
        """Give out up to `count` records; also the batches that were opened: their credit can go back.

        Raises LogDamagedError where the next batch cannot be read; the cursor stands before it then.
        """
        out = list(islice(self.left, count))
        opened: list[FetchedBatch] = []
        while len(out) < count and self._fetched:
            try:
                opened.append(self._open_next())
            except LogDamagedError:
                if out:
                    break  # the next call tells
                raise
            out += islice(self.left, count - len(out))
        return out, opened

    def _open_next(self) -> FetchedBatch:
        """Open the next batch; all records of the former one have been given out."""
        batch = self._fetched[0]
        records = batch.to_records()
        self._fetched.popleft()
        self._begin, self._end = self.position, batch.last_offset + 1
        self._current, self._records, self.left = batch, records, iter(records)
        self._given_epoch = batch.leader_epoch
        return batch

    def _stand_at(self, position: int) -> None:
        """Let go of the open batch. Its iterator is used up, for others may hold it."""
        deque(self.left, maxlen=0)
        self._records, self.left, self._current = [], iter(()), None
        self._begin = self._end = position

    def move(self, offset: int) -> list[FetchedBatch]:
        """Read from `offset` on; gives what had been fetched and is dropped."""
        dropped = list(self._fetched)
        self._fetched.clear()
        self._stand_at(offset)
        self.fetch_offset = offset
        self.last_epoch = self._given_epoch = NO_EPOCH
        self.stopped, self.error = False, None
        self.above_end = 0
        self._faults = 0
        return dropped

    def rewind(self) -> list[FetchedBatch]:
        """Fetch again what was not given out; gives what is dropped. The log is still held to what was given out."""
        stopped, error, given_epoch = self.stopped, self.error, self._given_epoch
        dropped = self.move(self.position)
        self.stopped, self.error = stopped, error
        self.last_epoch = self._given_epoch = given_epoch
        return dropped

    def skip_to(self, offset: int) -> None:
        """Fetch from `offset` on, after what has been fetched: retention dropped what is between."""
        self.fetch_offset = offset
        self.last_epoch = NO_EPOCH
        if not self.has_data:
            self._stand_at(offset)
