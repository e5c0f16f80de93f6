"""Reading one log. Any thread; each call is one short read transaction, so that no pages stay pinned.

What is read is checked as it goes: row checksums and tiling (each batch begins where the one before ended). A
contradiction is a DamagedStoreError, never other data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from penstock.protocol.batch import InvalidBatchError, parse
from penstock.protocol.batch import read as read_records
from penstock.storage.env import Environment
from penstock.storage.errors import LogDroppedError, OffsetAboveEndError, OffsetBelowStartError
from penstock.storage.layout import (
    EPOCH_KEY,
    LOCAL,
    U64,
    damaged,
    offset_key,
    producer_key,
    read_producer_key,
    read_time_key,
    time_key,
    unpack_batch,
    unpack_log,
    unpack_producer,
)
from penstock.storage.producers import ProducerState
from penstock.storage.types import NO_EPOCH, EpochEnd, EpochStart, LogBatch, LogState, PartitionKey, ReplicaSeed


class Snapshot(NamedTuple):
    """A read transaction, and the log's row in it: the two belong together, whatever the writer does meanwhile."""

    txn: Any
    data: int
    state: LogState


class Log:
    """A partition's log. `state` is the durable one, replaced as a whole after each commit."""

    __slots__ = ("_environment", "key", "local", "state")

    def __init__(self, environment: Environment, key: PartitionKey, local: int, state: LogState) -> None:
        self._environment = environment
        self.key = key
        self.local = local
        self.state = state

    def read(self, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        """Batches from the one that holds `start` on, up to those that begin before `end`.

        At least one where there is one below `end`; no more than `max_bytes` of payload after it. Raises
        OffsetBelowStartError, OffsetAboveEndError, DamagedStoreError.
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
        """All epochs that the log holds records of, or held before its start, in order."""
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
            row = snapshot.txn.get(producer_key(snapshot.data, producer_id), db=self._environment.db["producers"])
            return None if row is None else unpack_producer(bytes(row))

    def find_timestamp(self, timestamp_ms: int, end: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record at or after a time, below `end`; None where there is none."""
        with self._snapshot() as snapshot:
            log_start = snapshot.state.log_start_offset
            start = max(self._indexed_before(snapshot, timestamp_ms), log_start)
            for batch in self._batches(snapshot, start, end):
                if batch.header.max_timestamp_ms >= timestamp_ms:
                    found = self._record_at_or_after(batch, timestamp_ms, log_start)
                    if found is not None:
                        return found if found[0] < end else None
        return None

    def replica_seed(self) -> ReplicaSeed:
        """What a replica that starts at the log start must know of the log before it (rule 14)."""
        producers = []
        with self._snapshot() as snapshot:
            start = snapshot.state.log_start_offset
            epochs = tuple(epoch for epoch in self._epochs(snapshot) if epoch.start_offset < start)
            for key, row in self._rows(snapshot, "producers"):
                state = unpack_producer(bytes(row))
                before = tuple(batch for batch in state.batches if batch.last_offset < start)
                if before:
                    producers.append((read_producer_key(key)[1], state._replace(batches=before)))
        return ReplicaSeed(start, epochs, tuple(producers))

    # ---- inside a read transaction

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        with self._environment.begin() as txn:
            row = txn.get(LOCAL.pack(self.local), db=self._environment.db["partitions"])
            if row is None:
                raise LogDroppedError(f"the log of {self.key} was dropped")
            log_row = unpack_log(self.local, bytes(row))
            yield Snapshot(txn, log_row.data, log_row.state)

    def _epochs(self, snapshot: Snapshot) -> list[EpochStart]:
        return [
            EpochStart(EPOCH_KEY.unpack(key)[1], U64.unpack(value)[0]) for key, value in self._rows(snapshot, "epochs")
        ]

    def _rows(self, snapshot: Snapshot, space: str) -> Iterator[tuple[bytes, memoryview]]:
        """All rows of this log in a key space."""
        prefix = LOCAL.pack(snapshot.data)
        with snapshot.txn.cursor(self._environment.db[space]) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor.iternext():
                if bytes(key[:4]) != prefix:
                    return
                yield bytes(key), value

    def _batches(self, snapshot: Snapshot, start: int, end: int) -> Iterator[LogBatch]:
        """Batches from the one that holds `start`, while they begin before `end`; checked."""
        end = min(end, snapshot.state.log_end_offset)
        if start >= end:
            return
        lowest, expected = 0, start
        with snapshot.txn.cursor(self._environment.db["batches"]) as cursor:
            self._seek(cursor, snapshot.data, start)
            for key, row in cursor.iternext():
                batch = self._checked(snapshot.data, bytes(key), row, expected)
                if batch.base_offset < lowest:
                    raise damaged(f"the batches of {self.key} overlap at offset {expected}")
                yield batch
                lowest = expected = batch.last_offset + 1
                if expected >= end:
                    return
        raise damaged(f"{self.key} ends at offset {expected}, its row says {snapshot.state.log_end_offset}")

    def _seek(self, cursor: Any, data: int, start: int) -> None:
        """Put the cursor on the batch that holds `start`: the last one that does not begin after it."""
        key = offset_key(data, start)
        if cursor.set_range(key):
            if bytes(cursor.key()) == key or cursor.prev():
                return
        elif cursor.last():
            return
        raise damaged(f"{self.key} has no batch at offset {start}")

    def _checked(self, data: int, key: bytes, row: memoryview, expected: int) -> LogBatch:
        if key[:4] != LOCAL.pack(data):
            raise damaged(f"{self.key} has no batch at offset {expected}")
        batch = unpack_batch(key, row)
        if not batch.base_offset <= expected <= batch.last_offset:
            raise damaged(f"{self.key} has no batch at offset {expected}, but one at {batch.base_offset}")
        return batch

    def _indexed_before(self, snapshot: Snapshot, timestamp_ms: int) -> int:
        """Offset of a batch before which all timestamps are lower than the one asked for."""
        with snapshot.txn.cursor(self._environment.db["times"]) as cursor:
            at_or_after = cursor.set_range(time_key(snapshot.data, timestamp_ms, 0))
            if not (cursor.prev() if at_or_after else cursor.last()):
                return 0
            data, _, base_offset = read_time_key(bytes(cursor.key()))
            return base_offset if data == snapshot.data else 0

    def _record_at_or_after(self, batch: LogBatch, timestamp_ms: int, log_start: int) -> tuple[int, int] | None:
        try:
            _, message = parse(batch.payload)
            for record in read_records(message):
                timestamp = batch.header.base_timestamp_ms + record.timestamp_delta_ms
                offset = batch.base_offset + record.offset_delta
                if timestamp >= timestamp_ms and offset >= log_start:
                    return offset, timestamp
        except InvalidBatchError as error:
            raise damaged(f"the batch of {self.key} at offset {batch.base_offset}: {error}") from error
        return None


def _check_bounds(start: int, state: LogState) -> None:
    if start < state.log_start_offset:
        raise OffsetBelowStartError(f"offset {start} is below the log start {state.log_start_offset}")
    if start > state.log_end_offset:
        raise OffsetAboveEndError(f"offset {start} is above the log end {state.log_end_offset}")
