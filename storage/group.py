"""One group of writes inside its transaction: what each kind of write changes.

Works on copies of the rows and producers it touches; `publish` makes them the store's after the commit.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from penstock.protocol.batch import NO_PRODUCER
from penstock.storage import layout
from penstock.storage.errors import AppendFailedError, LogDroppedError, StaleEpochError, StorageError
from penstock.storage.layout import GARBAGE_ALL, NO_MAXIMUM, LogRow
from penstock.storage.log import Log
from penstock.storage.producers import ProducerState, advance
from penstock.storage.types import NO_EPOCH, LogBatch, LogState
from penstock.storage.writes import (
    ActIn,
    Append,
    CheckpointHighWatermark,
    CreateLog,
    DropLog,
    ExpireProducers,
    ForgetStarts,
    MoveStart,
    Outcome,
    RecordStart,
    ResetLog,
    Truncate,
    Write,
)

if TYPE_CHECKING:
    from penstock.storage.store import Store

EXPIRE_ROWS = 512
"""Producers that one ExpireProducers looks at."""


class Group:
    """Performs writes in a transaction. Used once."""

    def __init__(self, store: "Store", txn: Any) -> None:
        self._store = store
        self._txn = txn
        self._db = store.environment.db
        self._rows: dict[int, LogRow] = {}  # by local id
        self._producers: dict[tuple[int, int], ProducerState | None] = {}  # by data id and producer id
        self._failed: set[int] = set()  # local ids whose appends failed in this group
        self._dropped: list[Log] = []
        self._created: list[Log] = []
        self._garbage: dict[int, int] = {}
        self._starts: list[bytes] | None = None
        self._next_id = store.next_id
        self._perform: dict[type, Callable[[Any], Log | None]] = {
            Append: self._append,
            CheckpointHighWatermark: self._checkpoint,
            ActIn: self._act_in,
            Truncate: self._truncate,
            CreateLog: self._create,
            ResetLog: self._reset,
            MoveStart: self._move_start,
            DropLog: self._drop,
            RecordStart: self._record_start,
            ForgetStarts: self._forget_starts,
            ExpireProducers: self._expire_producers,
        }

    def perform(self, write: Write) -> Outcome:
        """Perform one write; a refused one changes nothing."""
        try:
            log = self._perform[type(write)](write)
        except (StaleEpochError, AppendFailedError, LogDroppedError) as error:
            return Outcome(write, getattr(write, "log", None), error)
        return Outcome(write, log, None)

    def flush(self) -> None:
        """Put the rows and producers that changed; the last step before the commit."""
        for local, row in self._rows.items():
            self._put("partitions", layout.LOCAL.pack(local), layout.pack_log(local, row))
        for (data, producer_id), state in self._producers.items():
            key = layout.producer_key(data, producer_id)
            if state is None:
                self._txn.delete(key, db=self._db["producers"])
            else:
                self._put("producers", key, layout.pack_producer(state))
        for data, below in self._garbage.items():
            self._put("garbage", layout.LOCAL.pack(data), layout.U64.pack(below))
        if self._next_id != self._store.next_id:
            self._put("store", b"next_id", layout.LOCAL.pack(self._next_id))
        if self._starts is not None:
            self._put("store", b"start_ids", b"".join(self._starts))

    def publish(self) -> None:
        """After the commit: make the store's memory what its file is."""
        store = self._store
        for log in self._created:
            store.add(log)
        for local, row in self._rows.items():
            store.replace(local, row)
        for log in self._dropped:
            store.remove(log)
        store.remember_producers(self._producers)
        store.garbage.update(self._garbage)
        store.next_id = self._next_id
        if self._starts is not None:
            store.recorded_starts = tuple(self._starts)

    # ---- helpers

    def _put(self, space: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._db[space])

    def _row(self, log: Log) -> LogRow:
        row = self._rows.get(log.local)
        if row is None:
            row = self._store.row(log.local)
        if row is None or log in self._dropped:
            raise LogDroppedError(f"the log of {log.key} was dropped")
        return row

    def _checked_row(self, log: Log, leader_epoch: int) -> LogRow:
        """The log's row, for a write that acts in a leader epoch (rule 26)."""
        row = self._row(log)
        if leader_epoch < row.state.acted_epoch:
            text = f"write of leader epoch {leader_epoch} to {log.key}, which has acted in {row.state.acted_epoch}"
            raise StaleEpochError(text)
        return row

    def _producer(self, data: int, producer_id: int) -> ProducerState | None:
        key = (data, producer_id)
        if key in self._producers:
            return self._producers[key]
        if key in self._store.producer_cache:
            return self._store.producer_cache[key]
        row = self._txn.get(layout.producer_key(data, producer_id), db=self._db["producers"])
        return None if row is None else layout.unpack_producer(bytes(row))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    # ---- appends

    def _append(self, write: Append) -> Log:
        row = self._checked_row(write.log, write.leader_epoch)
        if write.log.local in self._failed:
            raise AppendFailedError(f"a write to {write.log.key} before this one failed")
        try:
            _check_tiling(write, row.state)
        except AppendFailedError:
            self._failed.add(write.log.local)
            raise
        for batch in write.batches:
            row = self._append_batch(row, batch)
        self._rows[write.log.local] = row
        return write.log

    def _append_batch(self, row: LogRow, batch: LogBatch) -> LogRow:
        state, data = row.state, row.data
        key = layout.offset_key(data, batch.base_offset)
        self._txn.put(key, layout.pack_batch(key, batch) + batch.payload, db=self._db["batches"], append=False)
        if batch.leader_epoch != state.last_epoch:
            self._put("epochs", layout.EPOCH_KEY.pack(data, batch.leader_epoch), layout.U64.pack(batch.base_offset))
        if batch.header.producer_id != NO_PRODUCER:
            self._advance_producer(data, batch, key)
        size = layout.BATCH_ROW_BYTES + len(batch.payload)
        maximum, unindexed = row.max_timestamp_ms, row.unindexed_bytes + size
        if batch.header.max_timestamp_ms > maximum:
            maximum = batch.header.max_timestamp_ms
            if unindexed >= layout.INDEX_BYTES:
                self._put("times", layout.time_key(data, maximum, batch.base_offset), b"")
                unindexed = 0
        state = state._replace(
            log_end_offset=batch.last_offset + 1,
            last_epoch=batch.leader_epoch,
            size_bytes=state.size_bytes + size,
        )
        return LogRow(row.key, data, state, maximum, unindexed)

    def _advance_producer(self, data: int, batch: LogBatch, key: bytes) -> None:
        producer_id = batch.header.producer_id
        replaced = self._producer(data, producer_id)
        self._put("undo", key, layout.pack_undo(producer_id, replaced))
        self._producers[data, producer_id] = advance(replaced, batch.header, batch.base_offset, batch.append_time_ms)

    # ---- truncation and the like

    def _truncate(self, write: Truncate) -> Log:
        row = self._checked_row(write.log, write.leader_epoch)
        state, data, end = row.state, row.data, write.end_offset
        if not state.log_start_offset <= end <= state.log_end_offset:
            text = f"cannot cut {write.log.key}, {state.log_start_offset} to {state.log_end_offset}, at {end}"
            raise AppendFailedError(text)
        if end == state.log_end_offset:
            return write.log
        self._check_boundary(write.log, data, end)
        if end < state.high_watermark:  # only after an unclean election: what could undo it is gone
            self._trim_producers(data, end)
        self._undo_producers(data, end)
        removed = sum(len(value) for _, value in self._pop_from("batches", layout.offset_key(data, end), data))
        for _ in self._pop_epochs(data, end):
            pass
        maximum, unindexed = self._cut_times(data, end)
        self._rows[write.log.local] = LogRow(
            row.key,
            data,
            state._replace(
                log_end_offset=end,
                high_watermark=min(state.high_watermark, end),
                last_epoch=self._last_epoch(data),
                size_bytes=state.size_bytes - removed,
            ),
            maximum,
            unindexed,
        )
        return write.log

    def _check_boundary(self, log: Log, data: int, end: int) -> None:
        """A batch must begin at `end`: a batch is cut as a whole or not at all."""
        if self._txn.get(layout.offset_key(data, end), db=self._db["batches"]) is None:
            raise AppendFailedError(f"no batch of {log.key} begins at offset {end}, where it was to be cut")

    def _undo_producers(self, data: int, end: int) -> None:
        """Put back what the removed batches replaced, the latest first (rule 13)."""
        undone = list(self._pop_from("undo", layout.offset_key(data, end), data))
        for _, value in reversed(undone):
            producer_id, replaced = layout.unpack_undo(value)
            self._producers[data, producer_id] = replaced

    def _trim_producers(self, data: int, end: int) -> None:
        """Take the batches from `end` on out of what is known of producers."""
        prefix = layout.LOCAL.pack(data)
        with self._txn.cursor(self._db["producers"]) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()[:4]) == prefix:
                producer_id = layout.read_producer_key(bytes(cursor.key()))[1]
                state = self._producer(data, producer_id)
                if state is not None:
                    kept = tuple(batch for batch in state.batches if batch.last_offset < end)
                    self._producers[data, producer_id] = state._replace(batches=kept) if kept else None
                found = cursor.next()

    def _pop_from(self, space: str, key: bytes, data: int) -> Iterable[tuple[bytes, bytes]]:
        """Delete and yield the log's rows of a key space from `key` on."""
        prefix = layout.LOCAL.pack(data)
        with self._txn.cursor(self._db[space]) as cursor:
            found = cursor.set_range(key)
            while found and bytes(cursor.key()[:4]) == prefix:
                yield bytes(cursor.key()), bytes(cursor.value())
                found = cursor.delete() and bool(cursor.key())

    def _pop_epochs(self, data: int, end: int) -> Iterable[int]:
        """Delete and yield the epochs that begin at or after `end`."""
        prefix = layout.LOCAL.pack(data)
        with self._txn.cursor(self._db["epochs"]) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()[:4]) == prefix:
                if layout.U64.unpack(cursor.value())[0] >= end:
                    yield layout.EPOCH_KEY.unpack(cursor.key())[1]
                    found = cursor.delete() and bool(cursor.key())
                else:
                    found = cursor.next()

    def _last_epoch(self, data: int) -> int:
        with self._txn.cursor(self._db["epochs"]) as cursor:
            at_next = cursor.set_range(layout.LOCAL.pack(data + 1))
            if (cursor.prev() if at_next else cursor.last()) and bytes(cursor.key()[:4]) == layout.LOCAL.pack(data):
                return int(layout.EPOCH_KEY.unpack(cursor.key())[1])
        return NO_EPOCH

    def _cut_times(self, data: int, end: int) -> tuple[int, int]:
        """Drop the time index from `end` on; the running maximum of what is left, and its unindexed bytes."""
        maximum, indexed = NO_MAXIMUM, 0
        prefix = layout.LOCAL.pack(data)
        with self._txn.cursor(self._db["times"]) as cursor:
            at_next = cursor.set_range(layout.LOCAL.pack(data + 1))
            found = cursor.prev() if at_next else cursor.last()
            while found and bytes(cursor.key()[:4]) == prefix:
                _, timestamp, base_offset = layout.read_time_key(bytes(cursor.key()))
                if base_offset < end:
                    maximum, indexed = timestamp, base_offset
                    break
                cursor.delete()
                found = cursor.prev() if cursor.key() else cursor.last()
        unindexed = 0
        with self._txn.cursor(self._db["batches"]) as cursor:
            found = cursor.set_range(layout.offset_key(data, indexed))
            while found and bytes(cursor.key()[:4]) == prefix:
                batch = layout.unpack_batch(bytes(cursor.key()), cursor.value())
                maximum = max(maximum, batch.header.max_timestamp_ms)
                unindexed += len(cursor.value()) if batch.base_offset > indexed else 0
                found = cursor.next()
        return maximum, unindexed

    def _reset(self, write: ResetLog) -> Log:
        row = self._checked_row(write.log, write.leader_epoch)
        seed, data = write.seed, self._new_id()
        self._garbage[row.data] = GARBAGE_ALL
        for epoch in seed.epochs:
            self._put("epochs", layout.EPOCH_KEY.pack(data, epoch.leader_epoch), layout.U64.pack(epoch.start_offset))
        for producer_id, known in seed.producers:
            self._producers[data, producer_id] = known
        start = seed.start_offset
        last_epoch = seed.epochs[-1].leader_epoch if seed.epochs else NO_EPOCH
        state = LogState(start, start, start, last_epoch, row.state.acted_epoch, 0)
        self._rows[write.log.local] = LogRow(row.key, data, state, NO_MAXIMUM, 0)
        return write.log

    def _move_start(self, write: MoveStart) -> Log:
        row = self._checked_row(write.log, write.leader_epoch)
        start = min(write.log_start_offset, row.state.log_end_offset)
        if start > row.state.log_start_offset:
            self._garbage[row.data] = start
            high_watermark = max(row.state.high_watermark, start)
            state = row.state._replace(log_start_offset=start, high_watermark=high_watermark)
            self._rows[write.log.local] = row._replace(state=state)
        return write.log

    def _checkpoint(self, write: CheckpointHighWatermark) -> Log:
        row = self._row(write.log)
        high_watermark = min(write.high_watermark, row.state.log_end_offset)
        if high_watermark > row.state.high_watermark:
            self._forget_undo(row.data, high_watermark)
            self._rows[write.log.local] = row._replace(state=row.state._replace(high_watermark=high_watermark))
        return write.log

    def _forget_undo(self, data: int, below: int) -> None:
        """Nothing below the high watermark is ever truncated."""
        prefix = layout.LOCAL.pack(data)
        with self._txn.cursor(self._db["undo"]) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()[:4]) == prefix and layout.OFFSET_KEY.unpack(cursor.key())[1] < below:
                found = cursor.delete() and bool(cursor.key())

    def _act_in(self, write: ActIn) -> Log:
        row = self._checked_row(write.log, write.leader_epoch)
        self._rows[write.log.local] = row._replace(state=row.state._replace(acted_epoch=write.leader_epoch))
        return write.log

    # ---- whole logs and the store itself

    def _create(self, write: CreateLog) -> Log:
        log = self._store.log(write.key)
        if log is not None and log not in self._dropped:
            return log
        for log in self._created:
            if log.key == write.key and log not in self._dropped:
                return log
        log = Log(self._store.environment, write.key, self._new_id(), LogState())
        self._created.append(log)
        self._rows[log.local] = LogRow(write.key, self._new_id(), log.state, NO_MAXIMUM, 0)
        return log

    def _drop(self, write: DropLog) -> Log | None:
        created = [log for log in self._created if log.key == write.key and log not in self._dropped]
        log = created[0] if created else self._store.log(write.key)
        if log is None or log in self._dropped:
            return None
        self._garbage[self._row(log).data] = GARBAGE_ALL
        self._dropped.append(log)
        self._rows.pop(log.local, None)
        self._txn.delete(layout.LOCAL.pack(log.local), db=self._db["partitions"])
        return log

    def _expire_producers(self, write: ExpireProducers) -> None:
        with self._txn.cursor(self._db["producers"]) as cursor:
            found = cursor.set_range(self._store.expiry_position)
            for _ in range(EXPIRE_ROWS):
                if not found:
                    break
                key = bytes(cursor.key())
                identity = layout.read_producer_key(key)
                state = self._producer(*identity)
                if state is not None and state.timestamp_ms < write.before_ms:
                    self._producers[identity] = None
                found = cursor.next()
            self._store.expiry_position = bytes(cursor.key()) if found else b""

    def _record_start(self, write: RecordStart) -> None:
        self._starts = [*self._current_starts(), write.start_id]

    def _forget_starts(self, write: ForgetStarts) -> None:
        starts = self._current_starts()
        if write.start_id in starts:
            self._starts = starts[starts.index(write.start_id) :]

    def _current_starts(self) -> list[bytes]:
        return list(self._store.recorded_starts) if self._starts is None else self._starts


def _check_tiling(write: Append, state: LogState) -> None:
    """Each batch begins where the one before ended, in an epoch that is not lower."""
    end, epoch = state.log_end_offset, state.last_epoch
    for batch in write.batches:
        if batch.base_offset != end:
            raise AppendFailedError(f"batch at offset {batch.base_offset} of {write.log.key}, whose log ends at {end}")
        if batch.last_offset < batch.base_offset or batch.leader_epoch < epoch:
            text = f"batch {batch.base_offset} to {batch.last_offset} of epoch {batch.leader_epoch} after epoch {epoch}"
            raise AppendFailedError(f"{text} in {write.log.key}")
        end, epoch = batch.last_offset + 1, batch.leader_epoch


__all__ = ["Group", "StorageError"]
