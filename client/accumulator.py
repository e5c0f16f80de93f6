"""Gathers records into batches, one open batch a partition, within a bound of memory. Pure.

Invariants: a partition's records leave in the order in which they came; memory counted never exceeds `buffer_bytes`; no
batch but one of a single record is above `batch_bytes`. An open batch is closed when it is full, or by `close` once it
is due (linger over, or flushed); a due batch that cannot be sent yet goes on filling.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock.client.errors import BufferFullError, InvalidRequestError, RecordTooLargeError
from penstock.client.records import Headers
from penstock.protocol.batch import NOT_STAMPED, BatchHeader, seal
from penstock.protocol.reasons import Reason
from penstock.v1 import record_pb2 as pb

RECORD_OVERHEAD = 26
"""Bytes of a record on the wire beside key and value, at most (without headers)."""
HEADER_OVERHEAD = 14
RECORD_MEMORY = 128
"""Bytes of memory that a record costs beside its content: its message and its delivery."""
BATCH_OVERHEAD = 128
"""Bytes of a batch on the wire beside its records, at most."""

Waiter: TypeAlias = Any
"""A future, a callback, or None. The accumulator only keeps it."""


@dataclass(frozen=True, slots=True)
class AccumulatorLimits:
    """Named limits of an Accumulator."""

    batch_bytes: int
    buffer_bytes: int
    linger_ms: float
    delivery_timeout_ms: int
    compression: "pb.Compression.ValueType"


_EMPTY = pb.RecordSet()


class PendingBatch:
    """Records of one partition, open (`record_set`) or closed (`sealed`)."""

    __slots__ = ("add", "base_timestamp_ms", "created_ms", "deadline_ms", "due", "lane", "record_set", "sealed", "size",
                 "stamps", "waiters")  # fmt: skip

    def __init__(self, lane: "Lane", created_ms: float, deadline_ms: int, timestamp_ms: int) -> None:
        self.lane = lane
        self.created_ms = created_ms
        self.deadline_ms = deadline_ms
        self.base_timestamp_ms = timestamp_ms
        self.record_set = pb.RecordSet()
        self.add = self.record_set.records.add
        self.sealed: pb.RecordBatch | None = None
        self.size = 0
        self.due = False
        self.waiters: list[Waiter] = []
        """One a record, in order."""
        self.stamps: list[int] = []
        """Timestamps of the records, in order."""

    @property
    def record_count(self) -> int:
        """Number of records."""
        return len(self.stamps)


class Lane:
    """One partition's records on their way: at most one open batch, and closed ones in order."""

    def __init__(self, topic_id: bytes, topic: str, partition: int) -> None:
        self.topic_id = topic_id
        self.topic = topic
        self.partition = partition
        self.full_bytes = 0
        """A batch is full at this size; set by Accumulator.fit."""
        self.max_record_bytes = 0
        self.open: PendingBatch | None = None
        self.closed: deque[PendingBatch] = deque()


class Accumulator:
    """See the module. `monotonic_ms` is asked once a batch."""

    def __init__(self, limits: AccumulatorLimits, monotonic_ms: Callable[[], int]) -> None:
        self.limits = limits
        self.used_bytes = 0
        self.lingering: dict[Lane, None] = {}
        """Lanes whose open batch is not due yet, oldest batch first."""
        self.live: dict[PendingBatch, None] = {}
        """Batches begun and not released, oldest first."""
        self._monotonic_ms = monotonic_ms
        self._buffer_bytes = limits.buffer_bytes

    def fit(self, lane: Lane, max_batch_bytes: int) -> None:
        """Set a lane's limits from its topic's limit of a serialized batch."""
        most = max_batch_bytes - BATCH_OVERHEAD
        lane.max_record_bytes = min(most, self._buffer_bytes - RECORD_MEMORY)
        lane.full_bytes = min(self.limits.batch_bytes, most)

    def append(
        self, lane: Lane, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int, waiter: Waiter
    ) -> bool:
        """Add a record to its lane; True when it began a new batch.

        Raises BufferFullError, RecordTooLargeError, InvalidRequestError; then nothing has changed.
        """
        size = RECORD_OVERHEAD
        if value is not None:
            size += len(value)
        if key is not None:
            size += len(key)
        if headers:
            size += sum(HEADER_OVERHEAD + 4 * len(name) + (len(content) if content else 0) for name, content in headers)
        used = self.used_bytes + size + RECORD_MEMORY
        if used > self._buffer_bytes or size > lane.max_record_bytes:
            self._refuse(lane, size)
        batch = lane.open
        begun = False
        if batch is None or batch.size + size > lane.full_bytes:
            batch, begun = self._roll(lane, timestamp_ms), True
        stamps = batch.stamps
        try:
            record = batch.add(
                offset_delta=len(stamps),
                timestamp_delta_ms=timestamp_ms - batch.base_timestamp_ms,
                key=key,
                value=value,
            )
            if headers:
                for name, content in headers:
                    record.headers.add(key=name, value=content)
        except (TypeError, ValueError) as error:
            self._undo(batch)
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"not a record: {error}") from error
        batch.size += size
        batch.waiters.append(waiter)
        stamps.append(timestamp_ms)
        self.used_bytes = used
        return begun

    def close(self, lane: Lane) -> None:
        """Close the lane's open batch, if there is one."""
        batch = lane.open
        if batch is None:
            return
        lane.open = None
        self.lingering.pop(lane, None)
        header = BatchHeader(
            self.limits.compression,
            batch.record_count,
            0,
            batch.base_timestamp_ms,
            max(batch.stamps),
            *NOT_STAMPED,
            transactional=False,
            control=False,
        )
        batch.sealed = seal(batch.record_set.SerializeToString(), header)
        batch.record_set, batch.add = _EMPTY, _EMPTY.records.add  # the memory of the messages goes back now
        lane.closed.append(batch)

    def take_due(self, now_ms: float) -> list[Lane]:
        """Mark the open batches whose linger is over as due, and give their lanes."""
        due = []
        for lane in list(self.lingering):
            if lane.open is None or lane.open.created_ms + self.limits.linger_ms > now_ms:
                break
            lane.open.due = True
            del self.lingering[lane]
            due.append(lane)
        return due

    def next_due_ms(self) -> float | None:
        """When the next open batch becomes due."""
        for lane in self.lingering:
            if lane.open is not None:
                return lane.open.created_ms + self.limits.linger_ms
        return None

    def flush(self, lanes: Iterable[Lane]) -> None:
        """Mark the open batches of these lanes as due."""
        for lane in lanes:
            if lane.open is not None:
                lane.open.due = True
                self.lingering.pop(lane, None)

    def release(self, batch: PendingBatch) -> None:
        """Give back the memory of a batch that is settled."""
        if batch in self.live:
            del self.live[batch]
            self.used_bytes -= batch.size + batch.record_count * RECORD_MEMORY

    def has_room(self) -> bool:
        """Say whether a quarter of the memory is free: enough to go on without stopping at each record."""
        return self.used_bytes <= self.limits.buffer_bytes * 3 // 4

    def _roll(self, lane: Lane, timestamp_ms: int) -> PendingBatch:
        self.close(lane)
        now_ms = self._monotonic_ms()
        batch = PendingBatch(lane, now_ms, now_ms + self.limits.delivery_timeout_ms, timestamp_ms)
        lane.open = batch
        self.lingering[lane] = None
        self.live[batch] = None
        return batch

    def _undo(self, batch: PendingBatch) -> None:
        """Take a record back that could not be added whole."""
        del batch.record_set.records[batch.record_count :]
        if not batch.record_count:
            batch.lane.open = None
            self.lingering.pop(batch.lane, None)
            self.live.pop(batch, None)

    def _refuse(self, lane: Lane, size: int) -> None:
        if size > lane.max_record_bytes:
            limit = lane.max_record_bytes
            raise RecordTooLargeError(
                Reason.RECORD_TOO_LARGE,
                f"a record of {size} bytes is above the limit of {limit} bytes (of topic {lane.topic!r}, or of memory)",
                {"topic": lane.topic, "size": str(size), "limit": str(limit)},
            )
        raise BufferFullError(
            Reason.OVERLOADED, f"{self.used_bytes} of {self._buffer_bytes} bytes are in use and {size} more are needed"
        )
