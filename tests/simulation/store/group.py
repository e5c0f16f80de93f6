"""Performing writes on a MemoryStore: a group is worked out beside the store, and becomes its image at once.

Mirrors penstock.storage's `group` and `changes`, without rows on disk; what is pure there is used as it is.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import google_crc32c

from penstock.protocol.batch import NO_PRODUCER
from penstock.storage import (
    ActIn,
    Append,
    AppendFailedError,
    CheckpointHighWatermark,
    Compact,
    CreateLog,
    DropLog,
    EpochStart,
    ExpireProducers,
    ForgetStarts,
    Log,
    LogBatch,
    LogDroppedError,
    LogState,
    MoveStart,
    Outcome,
    PartitionKey,
    RecordStart,
    ResetLog,
    StaleCompactionError,
    StaleEpochError,
    StoreFullError,
    Truncate,
    Write,
    layout,
)
from penstock.storage import group as real
from penstock.storage.changes import check_append, check_seed
from penstock.storage.layout import BATCH_ROW_BYTES, LogRow
from penstock.storage.producers import ProducerState, advance
from penstock.storage.rewriting import check_content, check_tiling
from penstock.storage.types import NO_EPOCH
from tests.simulation.store.memory import Image, MemoryLog, MemoryStore, Row


class MemoryGroup:
    """Performs writes beside the store. Used once; without `publish` nothing of it is seen."""

    def __init__(self, store: MemoryStore, refused: StoreFullError | None) -> None:
        """`refused`: what appends fail with."""
        self._store = store
        self._refused = refused
        self._failed: set[int] = set()
        self._rows: dict[int, Row] = {}  # what changed, by local id
        self._producers: dict[int, dict[int, ProducerState]] = {}  # by data id; this group's own
        self._created: list[MemoryLog] = []
        self._dropped: list[Log] = []
        self._starts = store.image.starts
        self._next_id = store.image.next_id
        self._next_expiry = store.next_expiry

    def perform(self, write: Write) -> Outcome:
        """Perform one write; a refused one changes nothing."""
        try:
            log = self._performs[type(write)](self, write)
        except StaleCompactionError as error:
            return Outcome(write, real.log_of(write), error)
        except (StaleEpochError, AppendFailedError, LogDroppedError, StoreFullError) as error:
            refused = real.log_of(write)
            if refused is not None:
                self._failed.add(refused.local)
            return Outcome(write, refused, error)
        return Outcome(write, log, None)

    def publish(self) -> Image:
        """Make it the store's; what its disk holds from now on."""
        store = self._store
        rows = {**store.image.rows, **self._rows}
        for log in self._created:
            store.created(log)
        for dropped in self._dropped:
            rows.pop(dropped.local, None)
            if isinstance(dropped, MemoryLog):
                store.dropped(dropped)
        for row in self._rows.values():
            changed = store.log(row.key)
            if changed is not None and changed.local == row.local:
                changed.put(row)
        store.next_expiry = self._next_expiry
        store.image = Image(store.identity, rows, self._next_id, self._starts)
        return store.image

    # ---- helpers

    def _row(self, log: Log) -> Row:
        row = self._rows.get(log.local)
        if row is None:
            row = self._store.image.rows.get(log.local)
        if row is None or (self._dropped and log in self._dropped):
            raise LogDroppedError(f"the log of {log.key} was dropped")
        return row

    def _acting_row(self, log: Log, leader_epoch: int) -> Row:
        row = self._row(log)
        acted = row.state.acted_epoch
        if leader_epoch < acted:
            raise StaleEpochError(f"write of leader epoch {leader_epoch} to {log.key}, which has acted in {acted}")
        return row

    def _continuing_row(self, log: Log, leader_epoch: int) -> Row:
        row = self._acting_row(log, leader_epoch)
        if log.local in self._failed:
            raise AppendFailedError(f"a write to {log.key} before this one failed")
        return row

    def _put(self, row: Row, state: LogState, **changes: Any) -> None:
        self._rows[row.local] = row._replace(state=state, **changes)

    def _own_producers(self, row: Row) -> dict[int, ProducerState]:
        """The log's producers, to be changed by this group."""
        known = self._producers.get(row.data)
        if known is None:
            known = self._producers[row.data] = dict(row.producers)
        return known

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    # ---- what changes a log

    def _append(self, write: Append) -> Log:
        row = self._continuing_row(write.log, write.leader_epoch)
        check_append(write, row.state)
        if self._refused is not None:
            raise self._refused
        self._rows[row.local] = self._appended(row, write.leader_epoch, write.batches)
        return write.log

    def _appended(self, row: Row, acted: int, new: tuple[LogBatch, ...]) -> Row:
        start, end, high_watermark, last_epoch, _, size, first_offset, record_count, cleaned, tombstones = row.state
        rewritten_end = row.rewritten_end
        batches, undo, first, stop, epochs, producers = row.batches, row.undo, row.first, row.stop, row.epochs, None
        if len(batches) != stop:  # they go on elsewhere: after a cut, or in a state that was lost
            batches, undo, first, stop = batches[first:stop], undo[first:stop], 0, stop - first
        for batch in new:
            header, undone = batch.header, None
            if batch.leader_epoch != last_epoch:
                last_epoch = batch.leader_epoch
                epochs = (*epochs, EpochStart(last_epoch, batch.base_offset))
            if header.producer_id != NO_PRODUCER:
                producers = self._own_producers(row)
                undone = (header.producer_id, producers.get(header.producer_id))
                state = advance(undone[1], header, batch.base_offset, batch.append_time_ms, batch.last_offset)
                producers[header.producer_id] = state
            batches.append(batch)
            undo.append(undone)
            size += BATCH_ROW_BYTES + len(batch.payload)
            record_count += header.record_count
            if batch.base_offset + header.record_count <= batch.last_offset:
                rewritten_end = batch.last_offset + 1
            end = batch.last_offset + 1
        return Row(
            row.key,
            row.local,
            row.data,
            LogState(
                start, end, high_watermark, last_epoch, acted, size, first_offset, record_count, cleaned, tombstones
            ),
            batches,
            undo,
            first,
            stop + len(new),
            epochs,
            row.producers if producers is None else producers,
            row.forgotten,
            rewritten_end,
            row.cuts,
            row.marks,
        )

    def _truncate(self, write: Truncate) -> Log:
        row = self._continuing_row(write.log, write.leader_epoch)
        state, end = row.state, write.end_offset
        if not state.first_offset <= end <= state.log_end_offset:
            raise AppendFailedError(f"cannot cut {row.key} at {end}")
        if end == state.log_end_offset:
            self._put(row, state._replace(acted_epoch=write.leader_epoch))
            return write.log
        stop = row.place(end + 1) - 1
        base = row.batches[stop].base_offset
        if base != end and base >= row.rewritten_end:
            raise AppendFailedError(f"no batch of {row.key} begins at offset {end}, where it was to be cut")
        end = base
        cut = row.batches[stop : row.stop]
        epochs = tuple(epoch for epoch in row.epochs if epoch.start_offset < end)
        state = LogState(
            min(state.log_start_offset, end),
            end,
            min(state.high_watermark, end),
            epochs[-1].leader_epoch if epochs else NO_EPOCH,
            write.leader_epoch,
            state.size_bytes - _size(cut),
            state.first_offset,
            state.record_count - _count(cut),
            min(state.cleaned_offset, end),
            min(state.tombstones_below, end),
        )
        self._undo(row, stop, end)
        self._put(
            row,
            state,
            stop=stop,
            epochs=epochs,
            producers=self._own_producers(row),
            forgotten=min(row.forgotten, end),
            rewritten_end=min(row.rewritten_end, end),
            cuts=row.cuts + (end < row.state.high_watermark),
            marks={base: since for base, since in row.marks.items() if base < end},
        )
        return write.log

    def _undo(self, row: Row, stop: int, end: int) -> None:
        """Put back what the batches from place `stop` on replaced (rule 13)."""
        known = self._own_producers(row)
        for place in range(row.stop - 1, stop - 1, -1):
            undone = row.undo[place]
            if undone is None or undone[0] not in known or row.batches[place].base_offset < row.forgotten:
                continue
            _set(known, *undone)
        if end < row.state.high_watermark:
            for producer_id, state in list(known.items()):
                if state.batches and state.batches[-1].last_offset >= end:
                    kept = tuple(batch for batch in state.batches if batch.last_offset < end)
                    _set(known, producer_id, state._replace(batches=kept) if kept else None)

    def _reset(self, write: ResetLog) -> Log:
        row, seed = self._continuing_row(write.log, write.leader_epoch), write.seed
        check_seed(write)
        start, data = seed.start_offset, self._new_id()
        last_epoch = seed.epochs[-1].leader_epoch if seed.epochs else NO_EPOCH
        state = LogState(start, start, start, last_epoch, write.leader_epoch, 0, start, 0, start, seed.tombstones_below)
        producers = self._producers[data] = dict(seed.producers)
        self._rows[row.local] = Row(
            row.key, row.local, data, state, [], [], 0, 0, tuple(seed.epochs), producers, start, start
        )
        return write.log

    def _move_start(self, write: MoveStart) -> Log:
        row, asked = self._acting_row(write.log, write.leader_epoch), write.log_start_offset
        state = row.state._replace(acted_epoch=write.leader_epoch)
        start = min(asked, state.log_end_offset)
        if start <= state.log_start_offset:
            self._put(row, state)
            return write.log
        first, base = row.stop, state.log_end_offset
        if start < base:
            first = row.place(start + 1) - 1
            base = row.batches[first].base_offset
        forgotten = [epoch for epoch, following in pairwise(row.epochs) if following.start_offset < base]
        gone = row.batches[row.first : first]
        state = state._replace(
            log_start_offset=start,
            high_watermark=max(state.high_watermark, start),
            size_bytes=state.size_bytes - _size(gone),
            first_offset=base,
            record_count=state.record_count - _count(gone),
            cleaned_offset=max(state.cleaned_offset, base),
        )
        known = max(row.forgotten, state.high_watermark)
        self._put(row, state, first=first, epochs=row.epochs[len(forgotten) :], forgotten=known)
        return write.log

    def _compact(self, write: Compact) -> Log:
        row = self._row(write.log)
        state = row.state
        check_content(_seen(row), write)
        found = [b for b in row.batches[row.first : row.stop] if write.start <= b.base_offset < write.end]
        check_replaced(write, found)
        gone = {batch.base_offset for batch in found}
        new, marks = [], {base: since for base, since in row.marks.items() if base not in gone}
        for base, packed in write.rows:
            key = layout.offset_key(row.data, base)
            new.append(layout.unpack_batch(key, memoryview(packed)))
            marks[base] = layout.unpack_head(key, memoryview(packed)).tombstones_since_ms
        check_tiling(write, [_place(batch) for batch in found], [_place(batch) for batch in new])
        place = row.place(write.start)
        kept = [row.undo[at] for at in range(place + len(found), row.stop)]
        self._put(
            row,
            state._replace(
                size_bytes=state.size_bytes + _size(new) - _size(found),
                record_count=state.record_count + _count(new) - _count(found),
                cleaned_offset=max(state.cleaned_offset, write.cleaned_offset),
                tombstones_below=max(state.tombstones_below, write.tombstones_below),
            ),
            batches=[*row.batches[row.first : place], *new, *row.batches[place + len(found) : row.stop]],
            undo=[*row.undo[row.first : place], *[None] * len(new), *kept],
            first=0,
            stop=row.stop - row.first + len(new) - len(found),
            marks=marks,
            rewritten_end=max(row.rewritten_end, write.end if write.rows else 0),
        )
        return write.log

    def _checkpoint(self, write: CheckpointHighWatermark) -> Log:
        row = self._row(write.log)
        high_watermark = min(write.high_watermark, row.state.log_end_offset)
        if high_watermark > row.state.high_watermark:
            state = row.state._replace(high_watermark=high_watermark)
            self._put(row, state, forgotten=max(row.forgotten, high_watermark))
        return write.log

    def _act_in(self, write: ActIn) -> Log:
        row = self._acting_row(write.log, write.leader_epoch)
        if write.leader_epoch > row.state.acted_epoch:
            self._put(row, row.state._replace(acted_epoch=write.leader_epoch))
        return write.log

    # ---- whole logs and the store itself

    def _find(self, key: PartitionKey) -> MemoryLog | None:
        known = self._store.log(key)
        return next(
            (log for log in [*self._created, known] if log and log.key == key and log not in self._dropped), None
        )

    def _create(self, write: CreateLog) -> Log:
        log = self._find(write.key)
        if log is None:
            row = Row(write.key, self._new_id(), self._new_id(), LogState(), [], [], 0, 0, (), {}, 0)
            log = MemoryLog(self._store, row)
            self._created.append(log)
            self._rows[row.local] = row
        return log

    def _drop(self, write: DropLog) -> Log | None:
        log = self._find(write.key)
        if log is not None:
            self._dropped.append(log)
            self._rows.pop(log.local, None)
        return log

    def _expire_producers(self, write: ExpireProducers) -> None:
        """Of the producers that were known before this group, the next few."""
        left = real.EXPIRE_ROWS
        for base in sorted(self._store.image.rows.values(), key=lambda row: row.data):
            if base.data < self._next_expiry[0]:
                continue
            for producer_id in sorted(base.producers):
                if (base.data, producer_id) < self._next_expiry:
                    continue
                if left == 0:
                    self._next_expiry = (base.data, producer_id)
                    return
                left -= 1
                self._expire(base, producer_id, write.before_ms)
        self._next_expiry = (0, 0)

    def _expire(self, base: Row, producer_id: int, before_ms: int) -> None:
        row = self._rows.get(base.local, base)
        if row.data != base.data:
            return  # reset meanwhile
        known = self._own_producers(row)
        state = known.get(producer_id)
        if state is not None and state.timestamp_ms < before_ms:
            del known[producer_id]
            if row.producers is not known:
                self._put(row, row.state, producers=known)

    def _record_start(self, write: RecordStart) -> None:
        if len(write.start_id) != real.START_ID_BYTES:
            raise AppendFailedError(f"a start id has {real.START_ID_BYTES} bytes, not {len(write.start_id)}")
        self._starts = (*self._starts, write.start_id)[-real.MAX_STARTS :]

    def _forget_starts(self, write: ForgetStarts) -> None:
        if write.start_id in self._starts:
            self._starts = self._starts[self._starts.index(write.start_id) :]

    # Of the class and not of each group: one is made for every commit.
    _performs: ClassVar[dict[type, Callable[["MemoryGroup", Any], Log | None]]] = {
        Append: _append,
        CheckpointHighWatermark: _checkpoint,
        ActIn: _act_in,
        Truncate: _truncate,
        CreateLog: _create,
        ResetLog: _reset,
        MoveStart: _move_start,
        Compact: _compact,
        DropLog: _drop,
        RecordStart: _record_start,
        ForgetStarts: _forget_starts,
        ExpireProducers: _expire_producers,
    }


def check_replaced(write: Compact, found: Sequence[LogBatch]) -> None:
    """Those that are to go are those that are there."""
    if tuple((batch.base_offset, google_crc32c.value(batch.payload)) for batch in found) != write.replaced:
        raise StaleCompactionError(f"the batches of {write.log.key} were compacted by another")


def _count(batches: Sequence[LogBatch]) -> int:
    return sum(batch.header.record_count for batch in batches)


def _place(batch: LogBatch) -> tuple[int, int, int]:
    return batch.base_offset, batch.last_offset, batch.leader_epoch


def _seen(row: Row) -> LogRow:
    """The row as the real store has it, as far as a compaction is compared with it."""
    return LogRow(row.key, row.data, row.state, 0, 0, 0, row.rewritten_end, row.cuts)


def _size(batches: Sequence[LogBatch]) -> int:
    return sum(BATCH_ROW_BYTES + len(batch.payload) for batch in batches)


def _set(known: dict[int, ProducerState], producer_id: int, state: ProducerState | None) -> None:
    if state is None:
        known.pop(producer_id, None)
    else:
        known[producer_id] = state
