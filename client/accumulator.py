"""Gathers records into batches, one open batch a partition, within a bound of memory. Pure.

Invariants: a partition's records leave in the order in which they came; memory counted never exceeds `buffer_bytes`; no
batch but one of a single record is above `batch_bytes`. An open batch is closed when it is full, or by `close` once it
is due (linger over, or flushed); a due batch that cannot be sent yet goes on filling.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from penstock.client.errors import BufferFullError, InvalidRequestError, RecordTooLargeError
from penstock.client.records import Headers
from penstock.protocol.batch import NOT_STAMPED, BatchHeader
from penstock.protocol.compression import compress
from penstock.protocol.reasons import Reason
from penstock.protocol.record_set import checked_content, checked_timestamp, encode_headers, encode_record_set, unrolled
from penstock.v1 import record_pb2 as pb

RECORD_OVERHEAD = 26
"""Bytes of a record on the wire beside key and value, at most (without headers)."""
HEADER_OVERHEAD = 14
RECORD_MEMORY = 128
"""Bytes of memory that a record costs beside its content: its place in the batch and its delivery."""
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


class Sealed(NamedTuple):
    """The content of a closed batch. What it is stamped with is decided when it is sent."""

    header: BatchHeader
    records: bytes
    """As the header says compressed."""


class PendingBatch:
    """Records of one partition: open, in columns (`values`, `keys`, `headers`), or closed (`sealed`)."""

    __slots__ = ("created_ms", "deadline_ms", "due", "full_bytes", "has_waiters", "headers", "keys", "lane",
                 "latest_ms", "room", "sealed", "stamp_runs", "timestamp_ms", "values", "waiters")  # fmt: skip

    def __init__(self, lane: "Lane", created_ms: float, deadline_ms: int, timestamp_ms: int) -> None:
        self.lane = lane
        self.created_ms = created_ms
        self.deadline_ms = deadline_ms
        self.sealed: Sealed
        """Set when the batch is closed."""
        self.full_bytes = self.room = lane.full_bytes
        """A batch is full at this size; what is left of it, below 0 where one record is larger."""
        self.due = False
        self.values: list[bytes | None] = []
        self.keys: list[bytes | None] | None = None
        """None while no record has a key."""
        self.headers: dict[int, bytes] = {}
        """Serialized, by the record's index, where it has any."""
        self.timestamp_ms = timestamp_ms
        """Of the newest record."""
        self.latest_ms = timestamp_ms
        """The largest."""
        self.stamp_runs = [(0, timestamp_ms)]
        """Runs of equal timestamps: index of the first record, timestamp."""
        self.waiters: list[Waiter] = []
        """One a record, in order."""
        self.has_waiters = False
        """One of them is not None."""

    @property
    def record_count(self) -> int:
        """Number of records."""
        return len(self.waiters)

    @property
    def size(self) -> int:
        """Bytes of the records, at most."""
        return self.full_bytes - self.room

    @property
    def stamps(self) -> list[int]:
        """Timestamps of the records, in order."""
        return unrolled(self.stamp_runs, len(self.waiters))


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
        if lane.open is not None:
            lane.open.room += lane.full_bytes - lane.open.full_bytes
            lane.open.full_bytes = lane.full_bytes

    def append(
        self, lane: Lane, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int, waiter: Waiter
    ) -> bool:
        """Add a record to its lane; True when it began a new batch.

        Raises BufferFullError, RecordTooLargeError, InvalidRequestError; then nothing has changed.
        """
        size = RECORD_OVERHEAD if value is None else RECORD_OVERHEAD + len(value)
        if key is not None:
            size += len(key)
        if headers:
            size += _size_of(headers)
        used = self.used_bytes + size + RECORD_MEMORY
        batch = lane.open
        begun = False
        if (
            batch is None
            or used > self._buffer_bytes
            or size > batch.room
            or timestamp_ms != batch.timestamp_ms
            or type(timestamp_ms) is not int
            or type(value) is not bytes
            or (key is not None and (type(key) is not bytes or batch.keys is None))
            or headers
        ):
            if used > self._buffer_bytes or size > lane.max_record_bytes:
                self._refuse(lane, size)
            batch, key, value = self._prepare(lane, key, value, headers, timestamp_ms, size)
            begun = not batch.waiters
        if batch.keys is not None:
            batch.keys.append(key)
        batch.values.append(value)
        batch.waiters.append(waiter)
        if waiter is not None:
            batch.has_waiters = True
        batch.room -= size
        self.used_bytes = used
        return begun

    def extend(self, lane: Lane, values: Sequence[bytes], start: int) -> int:
        """Add values from `start` on to the open batch while there is room; how many.

        Stops before one that `append` must look at. They have no key, no headers, no waiter, and the last one's time.
        """
        batch = lane.open
        if batch is None:
            return 0
        room, free = batch.room, self._buffer_bytes - self.used_bytes
        end = start
        for value in values[start : start + room // RECORD_OVERHEAD]:
            if type(value) is not bytes:
                break
            size = RECORD_OVERHEAD + len(value)
            if size > room or size + RECORD_MEMORY > free:
                break
            room -= size
            free -= size + RECORD_MEMORY
            end += 1
        count = end - start
        batch.values.extend(values[start:end])
        batch.waiters.extend([None] * count)
        if batch.keys is not None:
            batch.keys.extend([None] * count)
        batch.room, self.used_bytes = room, self._buffer_bytes - free
        return count

    def _prepare(
        self, lane: Lane, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int, size: int
    ) -> tuple[PendingBatch, bytes | None, bytes | None]:
        """Check a record that is not like the one before it, and make its batch ready for it: key and value follow."""
        batch = lane.open
        if batch is not None and size > batch.room:
            batch = None
        try:
            key, value = checked_content(key), checked_content(value)
            content = encode_headers(headers) if headers else None
            timestamp_ms = checked_timestamp(timestamp_ms, None if batch is None else batch.stamp_runs[0][1])
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"not a record: {error}") from error
        if batch is None:
            batch = self._roll(lane, timestamp_ms)
        elif timestamp_ms != batch.timestamp_ms:
            batch.timestamp_ms = timestamp_ms
            batch.stamp_runs.append((len(batch.waiters), timestamp_ms))
            batch.latest_ms = max(batch.latest_ms, timestamp_ms)
        if content is not None:
            batch.headers[len(batch.waiters)] = content
        if key is not None and batch.keys is None:
            batch.keys = [None] * len(batch.waiters)
        return batch, key, value

    def close(self, lane: Lane) -> None:
        """Close the lane's open batch, if there is one."""
        batch = lane.open
        if batch is None:
            return
        lane.open = None
        self.lingering.pop(lane, None)
        record_set = encode_record_set(batch.values, batch.keys, batch.headers, batch.stamp_runs)
        header = BatchHeader(
            self.limits.compression,
            batch.record_count,
            len(record_set),
            batch.stamp_runs[0][1],
            batch.latest_ms,
            *NOT_STAMPED,
            transactional=False,
            control=False,
        )
        batch.sealed = Sealed(header, compress(record_set, header.compression))
        batch.values, batch.keys, batch.headers = [], None, {}  # their memory goes back now
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


def _size_of(headers: Headers) -> int:
    """Bytes of the headers on the wire, at most."""
    size = 0
    for name, content in headers:
        size += HEADER_OVERHEAD + 4 * len(name) + (len(content) if content else 0)
    return size
