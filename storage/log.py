"""Reading one log. Any thread; each call is one short read transaction, so that no pages stay pinned.

What is read is checked as it goes: row checksums and tiling (each batch begins where the one before ended). A
contradiction is a DamagedStoreError, never other data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import lmdb

from penstock.protocol.batch import NO_PRODUCER, InvalidBatchError, parse
from penstock.protocol.batch import read as read_records
from penstock.storage.compaction import StoredRow
from penstock.storage.compaction_run import Stored
from penstock.storage.errors import (
    DamagedStoreError,
    LogDroppedError,
    OffsetAboveEndError,
    OffsetBelowStartError,
    StorageError,
)
from penstock.storage.layout import (
    EPOCH_KEY,
    LOCAL,
    OFFSET_KEY,
    BatchHead,
    LogRow,
    damaged,
    offset_key,
    read_time_key,
    time_key,
    unpack_epoch,
    unpack_head,
    unpack_log,
    unpack_whole,
    unseal,
)
from penstock.storage.producer_rows import read_producer, scan_producers
from penstock.storage.producers import ProducerState
from penstock.storage.rows import Rows, key_of
from penstock.storage.types import (
    APPEND_TIME,
    NO_EPOCH,
    BatchSummary,
    EpochEnd,
    EpochStart,
    LogBatch,
    LogState,
    PartitionKey,
    ReplicaSeed,
)


class Readable(Protocol):
    """What is asked of an environment (storage.env)."""

    db: dict[str, Any]

    def begin(self) -> Any:
        """Begin a read transaction."""
        ...

    def tell(self, error: DamagedStoreError) -> None:
        """A read found damage."""
        ...


class Snapshot(NamedTuple):
    """A read transaction, and the log's row in it: the two belong together, whatever the writer does meanwhile."""

    rows: Rows
    row: LogRow

    @property
    def data(self) -> int:
        """Data id."""
        return self.row.data

    @property
    def state(self) -> LogState:
        """State of the log."""
        return self.row.state


class Log:
    """A partition's log. `state` is the durable one, replaced as a whole after each commit."""

    __slots__ = ("_environment", "key", "local", "state")

    def __init__(self, environment: Readable, key: PartitionKey, local: int, state: LogState) -> None:
        self._environment = environment
        self.key = key
        self.local = local
        self.state = state

    def read(self, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        """Batches from the one that holds `start` on, up to those that begin before `end`.

        At least one where there is one below `end`; no more than `max_bytes` of payload after it. What is below the log
        start in the first batch is there too: a replica that is filled begins with a whole batch. Raises
        OffsetBelowStartError below the first batch, OffsetAboveEndError, DamagedStoreError.
        """
        found: list[LogBatch] = []
        room = max_bytes
        with self._snapshot() as snapshot:
            _check_bounds(start, snapshot.state)
            for batch in self._batches(snapshot, start, end):
                room -= len(batch.payload)
                if found and room < 0:
                    break
                found.append(batch)
                if room <= 0:
                    break
        return found

    def summaries(self, start: int, end: int, limit: int) -> list[BatchSummary]:
        """Up to `limit` batches from the one that holds `start` on, those that begin before `end`; payloads unread.

        Raises OffsetAboveEndError, DamagedStoreError. From below the log's first batch on: from that one.
        """
        found: list[BatchSummary] = []
        with self._snapshot() as snapshot:
            start, end = max(start, snapshot.state.first_offset), min(end, snapshot.state.log_end_offset)
            for base, head in self._heads(snapshot, start, end):
                found.append(
                    BatchSummary(base, head.last_offset, head.row_bytes, head.header.record_count, head.max_time_ms)
                )
                if len(found) >= limit:
                    break
        return found

    def stored_rows(self, start: int, end: int, max_bytes: int) -> Stored:
        """For compaction: see compaction_run.Source. Raises DamagedStoreError."""
        found: list[StoredRow] = []
        room = max_bytes
        with self._snapshot() as snapshot:
            row = snapshot.row
            start = max(start, row.state.first_offset)
            for batch, head in self._batches_and_heads(snapshot, start, end):
                pinned = self._is_remembered(snapshot, batch)
                found.append(StoredRow(batch, head.position, head.tombstones_since_ms, pinned))
                room -= len(batch.payload)
                if room <= 0:
                    break
            return Stored((row.data, row.cuts), row.state, found)

    def dirty_bytes(self) -> int:
        """Bytes of the batches from the cleaned offset on. Raises DamagedStoreError."""
        with self._snapshot() as snapshot:
            row, state = snapshot.row, snapshot.state
            start = max(state.cleaned_offset, state.first_offset)
            exact = max(start, row.rewritten_end)
            dirty = sum(head.row_bytes for _, head in self._heads(snapshot, start, exact))
            for _, head in self._heads(snapshot, exact, min(exact + 1, state.log_end_offset)):
                dirty += row.end_position - head.position
            return dirty

    def end_of_epoch(self, leader_epoch: int) -> EpochEnd | None:
        """Largest epoch of the log not above `leader_epoch`, and where it ends; None: there is none (KIP-279)."""
        with self._snapshot() as snapshot:
            end, epochs = snapshot.state.log_end_offset, self._epochs(snapshot)
        for epoch in reversed(epochs):
            if epoch.leader_epoch <= leader_epoch:
                return EpochEnd(epoch.leader_epoch, end)
            end = epoch.start_offset
        return None

    def epochs(self) -> list[EpochStart]:
        """All epochs that the log holds records of, and that of the last record before its start, in order."""
        with self._snapshot() as snapshot:
            return self._epochs(snapshot)

    def epoch_at(self, offset: int) -> int:
        """Leader epoch of the record at `offset`; NO_EPOCH where the log knows none."""
        found = NO_EPOCH
        for epoch in self.epochs():
            if epoch.start_offset > offset:
                break
            found = epoch.leader_epoch
        return found

    def epoch_start(self, leader_epoch: int) -> int | None:
        """First offset of the epoch."""
        return next((epoch.start_offset for epoch in self.epochs() if epoch.leader_epoch == leader_epoch), None)

    def producer(self, producer_id: int) -> ProducerState | None:
        """What the log knows of an idempotent producer."""
        with self._snapshot() as snapshot:
            return read_producer(snapshot.rows, snapshot.data, producer_id)

    def find_timestamp(self, timestamp_ms: int, end: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record at or after a time, below `end`; None where there is none."""
        with self._snapshot() as snapshot:
            log_start = snapshot.state.log_start_offset
            start = max(self._indexed_before(snapshot, timestamp_ms), log_start)
            for batch in self._batches(snapshot, start, end):
                if batch.max_time_ms >= timestamp_ms and batch.header.record_count:
                    found = self._record_at_or_after(batch, timestamp_ms, log_start)
                    if found is not None:
                        return found if found[0] < end else None
        return None

    def find_offset(self, offset: int, end: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record at or after an offset, below `end`; None where there is none."""
        with self._snapshot() as snapshot:
            state = snapshot.state
            start = max(offset, state.log_start_offset)
            for batch in self._batches(snapshot, start, min(end, state.log_end_offset)):
                for found, timestamp in self._records(batch):
                    if found >= start:
                        return (found, timestamp) if found < end else None
        return None

    def replica_seed(self) -> ReplicaSeed:
        """What a replica that starts with this log's first batch must know of the log before it (rule 14)."""
        producers = []
        with self._snapshot() as snapshot:
            start = snapshot.state.first_offset
            epochs = tuple(epoch for epoch in self._epochs(snapshot) if epoch.start_offset < start)
            for producer_id, state in scan_producers(snapshot.rows, snapshot.data):
                before = tuple(batch for batch in state.batches if batch.last_offset < start)
                if before:
                    producers.append((producer_id, state._replace(batches=before)))
            tombstones_below = snapshot.state.tombstones_below
        return ReplicaSeed(start, epochs, tuple(producers), tombstones_below)

    # ---- inside a read transaction

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        try:
            with self._row() as snapshot:
                yield snapshot
        except DamagedStoreError as error:
            self._environment.tell(error)
            raise

    @contextmanager
    def _row(self) -> Iterator[Snapshot]:
        try:
            with self._environment.begin() as txn:
                rows = Rows(txn, self._environment.db)
                body = rows.get("partitions", LOCAL.pack(self.local))
                if body is None:
                    raise LogDroppedError(f"the log of {self.key} was dropped")
                yield Snapshot(rows, unpack_log(body))
        except lmdb.ReadersFullError as error:
            raise StorageError(f"too many readers at once: {error}") from error
        except lmdb.Error as error:
            raise damaged(f"reading {self.key}: {error}") from error

    def _epochs(self, snapshot: Snapshot) -> list[EpochStart]:
        """The epochs; each row names the one before it, and the log's row the last one, so that none can be missing."""
        found: list[EpochStart] = []
        start, last = snapshot.state.first_offset, NO_EPOCH
        for key, row in snapshot.rows.scan("epochs", LOCAL.pack(snapshot.data)):
            start_offset, former = unpack_epoch(unseal(key, row))
            if former != last and (found or start_offset >= start):
                raise damaged(f"the epoch before offset {start_offset} of {self.key} is missing")
            last = EPOCH_KEY.unpack(key)[1]
            found.append(EpochStart(last, start_offset))
        if last != snapshot.state.last_epoch:
            raise damaged(f"the last epoch of {self.key} is {last}, its row says {snapshot.state.last_epoch}")
        return found

    def _is_remembered(self, snapshot: Snapshot, batch: LogBatch) -> bool:
        """Whether the log knows the batch of its producer."""
        producer_id = batch.header.producer_id
        if producer_id == NO_PRODUCER:
            return False
        state = read_producer(snapshot.rows, snapshot.data, producer_id)
        return state is not None and any(known.base_offset == batch.base_offset for known in state.batches)

    def _batches(self, snapshot: Snapshot, start: int, end: int) -> Iterator[LogBatch]:
        """Batches from the one that holds `start`, while they begin before `end`; checked."""
        return (batch for batch, _ in self._batches_and_heads(snapshot, start, end))

    def _batches_and_heads(self, snapshot: Snapshot, start: int, end: int) -> Iterator[tuple[LogBatch, BatchHead]]:
        end = min(end, snapshot.state.log_end_offset)
        if start >= end:
            return
        prefix, expected = LOCAL.pack(snapshot.data), start
        with snapshot.rows.txn.cursor(self._environment.db["batches"]) as cursor:
            found = self._seek(cursor, offset_key(snapshot.data, start))
            while expected < end:
                key = key_of(cursor) if found else b""
                if key[: LOCAL.size] != prefix:
                    raise damaged(f"{self.key} has no batch at offset {expected}")
                batch, head = unpack_whole(key, cursor.value())
                tiles = batch.base_offset == expected or (expected == start and batch.base_offset < start)
                if not tiles or batch.last_offset < expected:
                    raise damaged(f"{self.key} has no batch at offset {expected}, but one at {batch.base_offset}")
                yield batch, head
                expected = batch.last_offset + 1
                found = expected >= end or cursor.set_key(offset_key(snapshot.data, expected))

    def _heads(self, snapshot: Snapshot, start: int, end: int) -> Iterator[tuple[int, BatchHead]]:
        """Bases and heads of the batches from the one that holds `start`, while they begin before `end`; checked."""
        expected, base = start, 0
        if start >= end:
            return
        with snapshot.rows.txn.cursor(self._environment.db["batches"]) as cursor:
            found = self._seek(cursor, offset_key(snapshot.data, start))
            while expected < end:
                key = key_of(cursor) if found else b""
                if key[: LOCAL.size] != LOCAL.pack(snapshot.data):
                    raise damaged(f"{self.key} has no batch at offset {expected}")
                head, base = unpack_head(key, cursor.value()), OFFSET_KEY.unpack(key)[1]
                tiles = base == expected or (expected == start and base < start)
                if not tiles or head.last_offset < expected:
                    raise damaged(f"{self.key} has no batch at offset {expected}, but one at {base}")
                yield base, head
                expected = head.last_offset + 1
                found = expected >= end or cursor.set_key(offset_key(snapshot.data, expected))

    def _seek(self, cursor: Any, key: bytes) -> bool:
        """Put the cursor on the batch that holds an offset: the last one that does not begin after it."""
        if not cursor.set_range(key):
            return bool(cursor.last())
        return key_of(cursor) == key or bool(cursor.prev())

    def _indexed_before(self, snapshot: Snapshot, timestamp_ms: int) -> int:
        """Offset of a batch before which all timestamps are lower than the one asked for."""
        found = snapshot.rows.last("times", snapshot.data, time_key(snapshot.data, timestamp_ms, 0))
        if found is None:
            return 0
        unseal(*found)
        return read_time_key(found[0])[2]

    def _record_at_or_after(self, batch: LogBatch, timestamp_ms: int, log_start: int) -> tuple[int, int] | None:
        for offset, timestamp in self._records(batch):
            if timestamp >= timestamp_ms and offset >= log_start:
                return offset, timestamp
        return None

    def _records(self, batch: LogBatch) -> Iterator[tuple[int, int]]:
        """Offset and timestamp of each record of a batch."""
        appended = batch.timestamp_type == APPEND_TIME
        try:
            _, message = parse(batch.payload)
            for record in read_records(message):
                timestamp = batch.header.base_timestamp_ms + record.timestamp_delta_ms
                yield batch.base_offset + record.offset_delta, batch.append_time_ms if appended else timestamp
        except InvalidBatchError as error:
            raise damaged(f"the batch of {self.key} at offset {batch.base_offset}: {error}") from error


def _check_bounds(start: int, state: LogState) -> None:
    """What is in the first batch below the log start is still read: a follower is filled with whole batches."""
    if start < state.first_offset:
        raise OffsetBelowStartError(f"offset {start} is below {state.first_offset}, where the log's first batch begins")
    if start > state.log_end_offset:
        raise OffsetAboveEndError(f"offset {start} is above the log end {state.log_end_offset}")
