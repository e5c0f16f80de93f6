"""A store in memory, behind the seam of penstock.storage: the same answers and errors, no lmdb, no files.

All that a disk holds is immutable values (`Image`, `Row`), replaced as a whole by each commit: so a commit is atomic,
and a copy or an earlier state costs nothing. Long lists are shared: a row owns its lists' entries up to `stop`, and
only the row that owns all of them may append in place. `test_contract.py` holds it to what the real store does.

Left out: damage, the file's room (a world says when it is full), deleting in the background (dropped data is gone at
once, and its producers take no turn in ExpireProducers).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple

from penstock.protocol.batch import parse
from penstock.protocol.batch import read as read_records
from penstock.storage import (
    BatchSummary,
    DamagedStoreError,
    EpochEnd,
    EpochStart,
    Log,
    LogBatch,
    LogDroppedError,
    LogState,
    OffsetAboveEndError,
    OffsetBelowStartError,
    PartitionKey,
    ReplicaSeed,
    Store,
    StoreIdentity,
)
from penstock.storage.compaction import StoredRow
from penstock.storage.compaction_run import Stored
from penstock.storage.layout import BATCH_ROW_BYTES, NO_TIME
from penstock.storage.producers import ProducerState
from penstock.storage.room import Room, RoomFigures, RoomState
from penstock.storage.types import APPEND_TIME

Undo = tuple[int, ProducerState | None]
"""Producer id, and what its batch replaced."""


class Row(NamedTuple):
    """One log as of a commit. Never changed; see the module for who may append to the lists."""

    key: PartitionKey
    local: int
    data: int  # changes when the log is reset
    state: LogState
    batches: list[LogBatch]
    undo: list[Undo | None]  # of each batch; None: it is of no producer
    first: int  # place of the first batch that is kept
    stop: int  # place after the last batch
    epochs: tuple[EpochStart, ...]
    producers: Mapping[int, ProducerState]
    forgotten: int  # offset; undo of batches below it is not kept
    rewritten_end: int = 0  # see penstock.storage.layout.LogRow
    cuts: int = 0
    marks: Mapping[int, int] = {}  # by base offset: since when a batch's tombstones are the last of their keys

    def place(self, offset: int) -> int:
        """Place of the first batch that begins at or after an offset."""
        return bisect_left(self.batches, (offset,), self.first, self.stop)


class Image(NamedTuple):
    """All that a disk holds as of a commit."""

    identity: StoreIdentity
    rows: Mapping[int, Row]  # by local id
    next_id: int = 1
    starts: tuple[bytes, ...] = ()


class MemoryLog(Log):
    """A partition's log. A Log, because writes and outcomes name those; `epoch_at` and `epoch_start` are that one's."""

    __slots__ = ("_store", "row")

    def __init__(self, store: "MemoryStore", row: Row) -> None:
        self._store = store
        self.key = row.key
        self.local = row.local
        self.state = row.state
        self.row: Row | None = row  # None: dropped, or the store is closed

    def put(self, row: Row) -> None:
        """A commit made this of the log."""
        self.row = row
        self.state = row.state

    def _present(self) -> Row:
        if self._store.closed:
            raise DamagedStoreError(f"reading {self.key}: the store is closed")
        if self.row is None:
            raise LogDroppedError(f"the log of {self.key} was dropped")
        return self.row

    def read(self, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        """See Log."""
        row = self._present()
        state = row.state
        if start < state.first_offset:
            raise OffsetBelowStartError(f"offset {start} is below the first batch, {state.first_offset}")
        if start > state.log_end_offset:
            raise OffsetAboveEndError(f"offset {start} is above the log end {state.log_end_offset}")
        found: list[LogBatch] = []
        end = min(end, state.log_end_offset)
        if start >= end:
            return found
        room, batches = max_bytes, row.batches
        for place in range(row.place(start + 1) - 1, row.stop):
            batch = batches[place]
            if batch.base_offset >= end:
                break
            room -= len(batch.payload)
            if found and room < 0:
                break
            found.append(batch)
        return found

    def end_of_epoch(self, leader_epoch: int) -> EpochEnd | None:
        """See Log."""
        row = self._present()
        end = row.state.log_end_offset
        for epoch in reversed(row.epochs):
            if epoch.leader_epoch <= leader_epoch:
                return EpochEnd(epoch.leader_epoch, end)
            end = epoch.start_offset
        return None

    def epochs(self) -> list[EpochStart]:
        """See Log."""
        return list(self._present().epochs)

    def producer(self, producer_id: int) -> ProducerState | None:
        """See Log."""
        return self._present().producers.get(producer_id)

    def find_timestamp(self, timestamp_ms: int, end: int) -> tuple[int, int] | None:
        """See Log."""
        row = self._present()
        for batch in row.batches[row.first : row.stop]:
            if batch.base_offset >= end:
                break
            if batch.max_time_ms < timestamp_ms or not batch.header.record_count:
                continue
            for record in read_records(parse(batch.payload)[1]):
                timestamp = batch.header.base_timestamp_ms + record.timestamp_delta_ms
                if batch.timestamp_type == APPEND_TIME:
                    timestamp = batch.append_time_ms
                offset = batch.base_offset + record.offset_delta
                if timestamp >= timestamp_ms and offset >= row.state.log_start_offset:
                    return (offset, timestamp) if offset < end else None
        return None

    def summaries(self, start: int, end: int, limit: int) -> list[BatchSummary]:
        """See Log."""
        row = self._present()
        start, end = max(start, row.state.first_offset), min(end, row.state.log_end_offset)
        if start >= end:
            return []
        chosen = row.batches[row.place(start + 1) - 1 : row.stop][:limit]
        return [
            BatchSummary(
                batch.base_offset,
                batch.last_offset,
                BATCH_ROW_BYTES + len(batch.payload),
                batch.header.record_count,
                batch.max_time_ms,
            )
            for batch in chosen
            if batch.base_offset < end
        ]

    def stored_rows(self, start: int, end: int, max_bytes: int) -> Stored:
        """See Log."""
        row = self._present()
        found: list[StoredRow] = []
        start, end = max(start, row.state.first_offset), min(end, row.state.log_end_offset)
        places = range(row.place(start + 1) - 1, row.stop) if start < end else ()
        for place in places:
            batch = row.batches[place]
            if batch.base_offset >= end or (found and max_bytes <= 0):
                break
            known = row.producers.get(batch.header.producer_id)
            pinned = known is not None and any(other.base_offset == batch.base_offset for other in known.batches)
            found.append(StoredRow(batch, 0, row.marks.get(batch.base_offset, NO_TIME), pinned))
            max_bytes -= len(batch.payload)
        return Stored((row.data, row.cuts), row.state, found)

    def dirty_bytes(self) -> int:
        """See Log."""
        row = self._present()
        state = row.state
        start = max(state.cleaned_offset, state.first_offset)
        if start >= state.log_end_offset:
            return 0
        dirty = row.batches[row.place(start + 1) - 1 : row.stop]
        return sum(BATCH_ROW_BYTES + len(batch.payload) for batch in dirty)

    def replica_seed(self) -> ReplicaSeed:
        """See Log."""
        row = self._present()
        start = row.state.first_offset
        producers = []
        for producer_id, state in sorted(row.producers.items()):
            before = tuple(batch for batch in state.batches if batch.last_offset < start)
            if before:
                producers.append((producer_id, state._replace(batches=before)))
        epochs = tuple(epoch for epoch in row.epochs if epoch.start_offset < start)
        return ReplicaSeed(start, epochs, tuple(producers), row.state.tombstones_below)


class MemoryRoom(Room):
    """Full when a world says so, never nearly."""

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full

    @property
    def state(self) -> RoomState:  # type: ignore[override]
        """See Room."""
        return RoomState.FULL if self._is_full() else RoomState.OK

    @property
    def figures(self) -> RoomFigures:
        """Nothing here takes room."""
        return RoomFigures(0, 0, 0, 0)


class MemoryStore(Store):
    """An open store: handles of the logs, over the image that the last commit left. Inherits as MemoryLog does."""

    def __init__(self, image: Image, durability: str, is_full: Callable[[], bool] = lambda: False) -> None:
        self.image = image
        self.room = MemoryRoom(is_full)
        self.identity = image.identity
        self.closed = False
        self.next_expiry = (0, 0)  # data id and producer id that ExpireProducers goes on with
        self._durability = durability
        self._handles = {row.key: MemoryLog(self, row) for row in image.rows.values()}

    @property
    def durability(self) -> str:
        """See Store."""
        return self._durability

    def close(self) -> None:
        """No log may be used afterwards; reads and commits fail."""
        self.closed = True

    def on_damage(self, callback: Callable[[DamagedStoreError], None]) -> None:
        """Nothing here is ever damaged."""

    def start_ids(self) -> tuple[bytes, ...]:
        """See Store."""
        return self.image.starts

    def log(self, key: PartitionKey) -> MemoryLog | None:
        """See Store."""
        return self._handles.get(key)

    def logs(self) -> list[Log]:
        """See Store."""
        return list(self._handles.values())

    def created(self, log: MemoryLog) -> None:
        """A log was created."""
        self._handles[log.key] = log

    def dropped(self, log: MemoryLog) -> None:
        """A log was dropped."""
        log.row = None
        if self._handles.get(log.key) is log:
            del self._handles[log.key]
