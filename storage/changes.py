"""What a write changes in one log, inside the group's transaction: appends, cuts, resets, the start.

Each takes the log's row and returns the new one. Invariants: batches tile [log start, log end); epochs never fall; the
first offset is the base of a batch (or the log end), so that a replica that is filled from there can append what it
gets; the log start is in that batch. Sizes and record counts are exact: below `rewritten_end` by reading, above it,
where nobody has rewritten anything, by subtracting.
"""

from itertools import pairwise

from penstock.protocol.batch import NO_PRODUCER
from penstock.storage import layout
from penstock.storage.errors import AppendFailedError
from penstock.storage.layout import NO_MAXIMUM, BatchHead, LogRow
from penstock.storage.producer_rows import ProducerRows
from penstock.storage.producers import advance
from penstock.storage.rows import Rows
from penstock.storage.types import NO_EPOCH, LogBatch, LogState, ReplicaSeed
from penstock.storage.writes import Append, ResetLog


def check_append(write: Append, state: LogState) -> None:
    """Each batch begins where the one before ended, in an epoch that is not lower, nor above the write's."""
    end, epoch = state.log_end_offset, max(0, state.last_epoch)
    for batch in write.batches:
        if batch.base_offset != end:
            raise AppendFailedError(f"batch at offset {batch.base_offset} of {write.log.key}, whose log ends at {end}")
        if batch.last_offset < batch.base_offset or not epoch <= batch.leader_epoch <= write.leader_epoch:
            text = f"batch {batch.base_offset} to {batch.last_offset} of epoch {batch.leader_epoch}"
            raise AppendFailedError(f"{text} in {write.log.key}, after epoch {epoch} and by epoch {write.leader_epoch}")
        end, epoch = batch.last_offset + 1, batch.leader_epoch


def append(rows: Rows, producers: ProducerRows, row: LogRow, batches: tuple[LogBatch, ...]) -> LogRow:
    """Append checked batches."""
    data, state = row.data, row.state
    position, epoch = row.end_position, state.last_epoch
    maximum, unindexed, rewritten_end = row.max_timestamp_ms, row.unindexed_bytes, row.rewritten_end
    record_count = state.record_count
    database = rows.databases["batches"]
    for batch in batches:
        key = layout.offset_key(data, batch.base_offset)
        undo = b"" if batch.header.producer_id == NO_PRODUCER else _advance_producer(producers, data, batch)
        rows.txn.put(key, layout.pack_batch(key, batch, position, undo) + batch.payload, db=database)
        if batch.leader_epoch != epoch:
            body = layout.pack_epoch(batch.base_offset, epoch)
            rows.put("epochs", layout.EPOCH_KEY.pack(data, batch.leader_epoch), body)
            epoch = batch.leader_epoch
        maximum = max(maximum, batch.max_time_ms)
        count = batch.header.record_count
        record_count += count
        if batch.base_offset + count <= batch.last_offset:  # the leader's compaction took some out
            rewritten_end = batch.last_offset + 1
        position += layout.BATCH_ROW_BYTES + len(batch.payload)
        unindexed += layout.BATCH_ROW_BYTES + len(batch.payload)
        if unindexed >= layout.INDEX_BYTES:
            rows.put("times", layout.time_key(data, maximum, batch.base_offset), b"")
            unindexed = 0
    end = batches[-1].last_offset + 1 if batches else state.log_end_offset
    size = state.size_bytes + position - row.end_position
    # _replace is slow, and this is the hot path
    start, _, high_watermark, _, acted, _, first, _, cleaned, tombstones = state
    state = LogState(start, end, high_watermark, epoch, acted, size, first, record_count, cleaned, tombstones)
    return LogRow(row.key, data, state, position, maximum, unindexed, rewritten_end, row.cuts)


def _advance_producer(producers: ProducerRows, data: int, batch: LogBatch) -> bytes:
    """Know the batch of its producer; what undoes that."""
    producer_id = batch.header.producer_id
    replaced = producers.get(data, producer_id)
    state = advance(replaced, batch.header, batch.base_offset, batch.append_time_ms, batch.last_offset)
    producers.set(data, producer_id, state)
    return layout.pack_undo(replaced, state)


def truncate(rows: Rows, producers: ProducerRows, row: LogRow, end: int) -> LogRow:
    """Drop everything from `end` on, and undo what it changed (rule 13).

    Where compaction has made one batch of several, all of that one: what is cut too much is fetched again.
    """
    state, data = row.state, row.data
    if not state.first_offset <= end <= state.log_end_offset:
        raise AppendFailedError(f"cannot cut {row.key}, {state.first_offset} to {state.log_end_offset}, at {end}")
    if end == state.log_end_offset:
        return row
    base, head = _batch_holding(rows, row, end)
    if base != end and base >= row.rewritten_end:
        raise AppendFailedError(f"no batch of {row.key} begins at offset {end}, where it was to be cut")
    end = base
    first, beyond = layout.offset_key(data, end), layout.LOCAL.pack(data + 1)
    cut = [(key, layout.unpack_head(key, value)) for key, value in rows.pop("batches", first, beyond)]
    for key, gone in reversed(cut):
        if gone.header.producer_id != NO_PRODUCER:
            _undo(producers, row, layout.OFFSET_KEY.unpack(key)[1], gone)
    if end < state.high_watermark:  # only after an unclean election, or at a weak durability
        producers.trim(data, end)
    state = state._replace(
        log_start_offset=min(state.log_start_offset, end),
        log_end_offset=end,
        high_watermark=min(state.high_watermark, end),
        last_epoch=_cut_epochs(rows, data, end),
        size_bytes=state.size_bytes - sum(gone.row_bytes for _, gone in cut),
        record_count=state.record_count - sum(gone.header.record_count for _, gone in cut),
        cleaned_offset=min(state.cleaned_offset, end),
        tombstones_below=min(state.tombstones_below, end),
    )
    cuts = row.cuts + (end < row.state.high_watermark)
    rewritten_end = min(row.rewritten_end, end)
    row = row._replace(state=state, end_position=head.position, rewritten_end=rewritten_end, cuts=cuts)
    return _cut_times(rows, row)


def _undo(producers: ProducerRows, row: LogRow, base_offset: int, head: BatchHead) -> None:
    """Put back what the producer's newest batch replaced. One that was forgotten since stays so: it was idle before."""
    producer_id = head.header.producer_id
    state = producers.get(row.data, producer_id)
    if state is None or base_offset < row.state.high_watermark:
        return
    if not state.batches or state.batches[-1].base_offset != base_offset:
        raise layout.damaged(f"{row.key} does not know the batch at offset {base_offset} of producer {producer_id}")
    producers.set(row.data, producer_id, layout.unpack_undo(head.undo, state))


def _batch_holding(rows: Rows, row: LogRow, offset: int) -> tuple[int, BatchHead]:
    """Base and head of the batch that an offset of the log is in. Raises DamagedStoreError where there is none."""
    found = rows.last("batches", row.data, layout.offset_key(row.data, offset + 1))
    head = None if found is None else layout.unpack_head(*found)
    if found is None or head is None or head.last_offset < offset:
        raise layout.damaged(f"{row.key} has no batch at offset {offset}")
    return layout.OFFSET_KEY.unpack(found[0])[1], head


def _epochs(rows: Rows, data: int) -> list[tuple[bytes, int]]:
    """Keys and start offsets of a log's epochs."""
    found = rows.scan("epochs", layout.LOCAL.pack(data))
    return [(key, layout.unpack_epoch(layout.unseal(key, row))[0]) for key, row in found]


def _cut_epochs(rows: Rows, data: int, end: int) -> int:
    """Drop the epochs that begin at or after `end`; the last one left."""
    last = NO_EPOCH
    for key, start_offset in _epochs(rows, data):
        if start_offset >= end:
            rows.delete("epochs", key)
        else:
            last = layout.EPOCH_KEY.unpack(key)[1]
    return last


def _cut_times(rows: Rows, row: LogRow) -> LogRow:
    """Drop the time index from the log end on; find the running maximum again, and the bytes since the last index row.

    Reads no more batches than those after the last index row that is left.
    """
    data, end, start = row.data, row.state.log_end_offset, row.state.first_offset
    maximum, indexed = NO_MAXIMUM, start
    while (last := rows.last("times", data)) is not None:
        layout.unseal(*last)
        _, timestamp, base_offset = layout.read_time_key(last[0])
        if base_offset < end:
            if base_offset >= start:
                maximum, indexed = timestamp, base_offset
            break
        rows.delete("times", last[0])
    unindexed = 0
    begin = indexed if indexed >= end else _batch_holding(rows, row, indexed)[0]  # compaction may have merged it
    for key, value in rows.scan("batches", layout.offset_key(data, begin)):
        head = layout.unpack_head(key, value)
        if maximum == NO_MAXIMUM or layout.OFFSET_KEY.unpack(key)[1] > indexed:
            unindexed += head.row_bytes
        maximum = max(maximum, head.max_time_ms)
    return row._replace(max_timestamp_ms=maximum, unindexed_bytes=unindexed)


def check_seed(write: ResetLog) -> None:
    """Epochs and their start offsets rise, below the start."""
    seed, former, lowest = write.seed, NO_EPOCH, 0
    for epoch in seed.epochs:
        if epoch.leader_epoch <= former or not lowest <= epoch.start_offset < seed.start_offset:
            raise AppendFailedError(f"the seed for {write.log.key} has epoch {epoch.leader_epoch} after {former}")
        former, lowest = epoch.leader_epoch, epoch.start_offset + 1
    if seed.start_offset < 0 or former > write.leader_epoch:
        text = f"offset {seed.start_offset}, epoch {former}, by epoch {write.leader_epoch}"
        raise AppendFailedError(f"the seed for {write.log.key} is impossible: {text}")


def reset(rows: Rows, producers: ProducerRows, row: LogRow, data: int, seed: ReplicaSeed) -> LogRow:
    """Start anew under a new data id, knowing what the seed says of the log before its start (rule 14)."""
    former = NO_EPOCH
    for epoch in seed.epochs:
        body = layout.pack_epoch(epoch.start_offset, former)
        rows.put("epochs", layout.EPOCH_KEY.pack(data, epoch.leader_epoch), body)
        former = epoch.leader_epoch
    for producer_id, known in seed.producers:
        producers.set(data, producer_id, known)
    start = seed.start_offset
    state = LogState(
        log_start_offset=start,
        log_end_offset=start,
        high_watermark=start,
        last_epoch=former,
        acted_epoch=row.state.acted_epoch,
        first_offset=start,
        cleaned_offset=start,
        tombstones_below=seed.tombstones_below,
    )
    return LogRow(row.key, data, state, 0, NO_MAXIMUM, 0, start)


def move_start(rows: Rows, row: LogRow, asked: int) -> LogRow:
    """Let the log begin at `asked`, or at its end; the batches that are wholly below are deleted in the background.

    In a part that compaction has rewritten it reads the heads of the batches that go.
    """
    state = row.state
    start = min(asked, state.log_end_offset)
    if start <= state.log_start_offset:
        return row
    first, position = state.log_end_offset, row.end_position
    if start < first:
        first, head = _batch_holding(rows, row, start)
        position = head.position
    if first >= row.rewritten_end:
        size, count = row.end_position - position, state.log_end_offset - first
    else:
        gone = _heads(rows, row, state.first_offset, first)
        size = state.size_bytes - sum(head.row_bytes for _, head in gone)
        count = state.record_count - sum(head.header.record_count for _, head in gone)
    _forget_epochs(rows, row.data, first)
    state = state._replace(
        log_start_offset=start,
        high_watermark=max(state.high_watermark, start),
        size_bytes=size,
        first_offset=first,
        record_count=count,
        cleaned_offset=max(state.cleaned_offset, first),
    )
    return row._replace(state=state)


def _heads(rows: Rows, row: LogRow, start: int, end: int) -> list[tuple[int, BatchHead]]:
    """Bases and heads of the batches that tile [start, end), which both are bases. Raises DamagedStoreError."""
    found: list[tuple[int, BatchHead]] = []
    expected = start
    for key, value in rows.scan("batches", layout.offset_key(row.data, start)):
        base = layout.OFFSET_KEY.unpack(key)[1]
        if base != expected or expected >= end:
            break
        head = layout.unpack_head(key, value)
        found.append((base, head))
        expected = head.last_offset + 1
    if expected != max(start, end):
        raise layout.damaged(f"{row.key} has no batch at offset {expected}")
    return found


def _forget_epochs(rows: Rows, data: int, start: int) -> None:
    """Drop the epochs that ended before the last record below the start."""
    epochs = _epochs(rows, data)
    for (key, _), (_, ended_at) in pairwise(epochs):
        if ended_at < start:
            rows.delete("epochs", key)


def checkpoint(row: LogRow, asked: int) -> LogRow:
    """Remember the high watermark."""
    high_watermark = min(asked, row.state.log_end_offset)
    if high_watermark <= row.state.high_watermark:
        return row
    return row._replace(state=row.state._replace(high_watermark=high_watermark))
