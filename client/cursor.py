"""Where a consumer stands in one partition, and the check of what a leader sends. Pure.

Invariants: what is accepted tiles the log from the fetch offset on, without a gap; leader epochs never go down; each
batch's CRC is right (unless not asked for). `position` is the next offset to be given out, never ahead of what the
application has been given; `fetch_offset` is the next one expected from the leader.
"""

from collections import deque
from collections.abc import Sequence

from penstock.client.errors import LogDamagedError
from penstock.client.records import Record, TopicPartition
from penstock.protocol.batch import InvalidBatchError, crc_of, header_of, read
from penstock.protocol.reasons import Reason
from penstock.v1 import consumer_service_pb2
from penstock.v1 import record_pb2 as pb

NO_EPOCH = -1
FAULT_MEMORY_MS = 60_000
"""Faults further apart are not in a row."""


class FetchedBatch:
    """A batch as it was fetched; its records are parsed when they are asked for."""

    __slots__ = ("_batch", "_start", "append_time_ms", "base_offset", "last_offset", "leader_epoch", "partition",
                 "record_count", "size", "source", "topic")  # fmt: skip

    def __init__(self, partition: TopicPartition, stored: pb.StoredBatch, start: int, source: object) -> None:
        self.topic, self.partition = partition
        self.base_offset = stored.base_offset
        self.last_offset = stored.last_offset
        self.leader_epoch = stored.leader_epoch
        self.append_time_ms = stored.append_time_ms
        self.record_count = stored.batch.record_count
        self.size = stored.batch.ByteSize()
        """Bytes of the serialized batch, as credits count them."""
        self.source = source
        """The stream session whose credit this batch has taken."""
        self._batch = stored.batch
        self._start = start

    @property
    def base_timestamp_ms(self) -> int:
        """Timestamp of a record = this + its timestamp_delta_ms."""
        return self._batch.base_timestamp_ms

    @property
    def records(self) -> Sequence[pb.Record]:
        """Parse the records from the position on: offset = base_offset + offset_delta. Raises LogDamagedError."""
        if self._batch.control:
            return ()
        try:
            records = read(self._batch)
        except InvalidBatchError as error:
            raise self.damaged(str(error)) from error
        if self._start > self.base_offset:
            return [record for record in records if self.base_offset + record.offset_delta >= self._start]
        return records  # type: ignore[return-value]  # a repeated field is a sequence

    def to_records(self) -> list[Record]:
        """Give the records as values."""
        base, time_ms, epoch = self.base_offset, self._batch.base_timestamp_ms, self.leader_epoch
        topic, partition = self.topic, self.partition
        return [
            Record(
                topic,
                partition,
                base + record.offset_delta,
                time_ms + record.timestamp_delta_ms,
                record.key if record.HasField("key") else None,
                record.value if record.HasField("value") else None,
                _headers(record) if record.headers else (),
                epoch,
            )
            for record in self.records
        ]

    def from_offset(self, offset: int) -> "FetchedBatch":
        """Give the same batch without the records below `offset`."""
        stored = pb.StoredBatch(
            base_offset=self.base_offset,
            last_offset=self.last_offset,
            leader_epoch=self.leader_epoch,
            append_time_ms=self.append_time_ms,
            batch=self._batch,
        )
        return FetchedBatch(TopicPartition(self.topic, self.partition), stored, offset, None)

    def check_crc(self) -> None:
        """Raise LogDamagedError where the CRC does not match."""
        if crc_of(header_of(self._batch), self._batch.records) != self._batch.crc32c:
            raise self.damaged("the CRC does not match")

    def damaged(self, why: str) -> LogDamagedError:
        """Make the error that names this batch."""
        where = f"{self.topic}-{self.partition} batch {self.base_offset}..{self.last_offset}"
        return LogDamagedError(Reason.CORRUPT_BATCH, f"{where}: {why}", {"topic": self.topic})


def _headers(record: pb.Record) -> list[tuple[str, bytes | None]]:
    return [(header.key, header.value if header.HasField("value") else None) for header in record.headers]


class Cursor:
    """See the module."""

    def __init__(self, topic_id: bytes, partition: TopicPartition, position: int) -> None:
        self.topic_id = topic_id
        self.partition = partition
        self.position = position
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
        """An error was raised; a seek starts it again."""
        self.above_end = 0
        """Times in a row that the leader said that its log ends before `fetch_offset`."""
        self._faults = 0
        """Times in a row that the server failed at this partition, with no batch between."""
        self._last_fault_ms = 0
        self._fetched: deque[FetchedBatch] = deque()
        self._decoded: deque[Record] = deque()
        self._current: FetchedBatch | None = None

    @property
    def has_data(self) -> bool:
        """There is something to give out."""
        return bool(self._decoded or self._fetched)

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
        if self._decoded and self._current is not None:
            left = self._current.from_offset(self._decoded[0].offset)
            self._decoded.clear()
            self.position = left.last_offset + 1
            return left, None
        if not self._fetched:
            return None, None
        batch = self._fetched.popleft()
        self.position = batch.last_offset + 1
        self._given_epoch = batch.leader_epoch
        return batch, batch

    def take(self, count: int) -> tuple[list[Record], list[FetchedBatch]]:
        """Give out up to `count` records; also the batches that were opened: their credit can go back."""
        out: list[Record] = []
        opened: list[FetchedBatch] = []
        while len(out) < count and (self._decoded or self._fetched):
            if not self._decoded:
                opened.append(self._open_next())
            need = count - len(out)
            if need >= len(self._decoded):
                out.extend(self._decoded)
                self._decoded.clear()
            else:
                out.extend(self._decoded.popleft() for _ in range(need))
            if out:
                self.position = out[-1].offset + 1
            if not self._decoded and self._current is not None:
                self.position = self._current.last_offset + 1
        return out, opened

    def take_one(self) -> Record | None:
        """Give out a record of the batch that is open; None where none is."""
        if not self._decoded:
            return None
        record = self._decoded.popleft()
        self.position = record.offset + 1
        return record

    def _open_next(self) -> FetchedBatch:
        batch = self._current = self._fetched.popleft()
        self._given_epoch = batch.leader_epoch
        self._decoded.extend(batch.to_records())
        return batch

    def move(self, offset: int) -> list[FetchedBatch]:
        """Read from `offset` on; gives what had been fetched and is dropped."""
        dropped = list(self._fetched)
        self._fetched.clear()
        self._decoded.clear()
        self.position = self.fetch_offset = offset
        self.last_epoch = self._given_epoch = NO_EPOCH
        self.stopped = False
        self.above_end = 0
        self._faults = 0
        return dropped

    def rewind(self) -> list[FetchedBatch]:
        """Fetch again what was not given out; gives what is dropped. The log is still held to what was given out."""
        stopped, given_epoch = self.stopped, self._given_epoch
        dropped = self.move(self.position)
        self.stopped = stopped
        self.last_epoch = self._given_epoch = given_epoch
        return dropped

    def skip_to(self, offset: int) -> None:
        """Fetch from `offset` on, after what has been fetched: retention dropped what is between."""
        self.fetch_offset = offset
        self.last_epoch = NO_EPOCH
        if not self.has_data:
            self.position = offset
