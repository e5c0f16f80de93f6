"""Putting compacted batches in the place of those that compaction read, inside the group's transaction.

The plan was made beside live traffic, from what was committed then. So everything that it relies on is compared again:
the log's content, each batch that goes, and that those that come tile the same offsets in the same leader epochs.
"""

from penstock.storage import layout
from penstock.storage.errors import StaleCompactionError
from penstock.storage.layout import BatchHead, LogRow
from penstock.storage.rows import Rows
from penstock.storage.writes import Compact


def rewrite(rows: Rows, row: LogRow, write: Compact) -> LogRow:
    """Perform the write. Raises StaleCompactionError before anything is changed."""
    state = row.state
    check_content(row, write)
    found = _found(rows, row, write)
    if tuple((base, head.payload_crc) for base, head in found) != write.replaced:
        raise StaleCompactionError(f"the batches of {row.key} from offset {write.start} on were compacted by another")
    new = [(base, _head_of(row, base, packed)) for base, packed in write.rows]
    check_tiling(write, [_place(base, head) for base, head in found], [_place(base, head) for base, head in new])
    database = rows.databases["batches"]
    staying = {base for base, _ in new}
    for base, _ in found:
        if base not in staying:
            rows.delete("batches", layout.offset_key(row.data, base))
    for base, packed in write.rows:
        rows.txn.put(layout.offset_key(row.data, base), packed, db=database)
    return row._replace(
        state=state._replace(
            size_bytes=state.size_bytes + _sizes(new) - _sizes(found),
            record_count=state.record_count + _counts(new) - _counts(found),
            cleaned_offset=max(state.cleaned_offset, write.cleaned_offset),
            tombstones_below=max(state.tombstones_below, write.tombstones_below),
        ),
        rewritten_end=max(row.rewritten_end, write.end if write.rows else 0),
    )


def _found(rows: Rows, row: LogRow, write: Compact) -> list[tuple[int, BatchHead]]:
    """Bases and heads of the batches that begin in the range."""
    found: list[tuple[int, BatchHead]] = []
    for key, value in rows.scan("batches", layout.offset_key(row.data, write.start)):
        base = layout.OFFSET_KEY.unpack(key)[1]
        if base >= write.end:
            break
        found.append((base, layout.unpack_head(key, value)))
    return found


def check_content(row: LogRow, write: Compact) -> None:
    """The log is the one that was read, and all of it that is to be changed is committed and kept."""
    state = row.state
    if (row.data, row.cuts) != write.content:
        raise StaleCompactionError(f"{row.key} was reset or cut while it was compacted")
    committed = state.high_watermark
    if (write.rows and write.start < state.first_offset) or max(
        write.end, write.cleaned_offset, write.tombstones_below
    ) > committed:
        text = f"{state.first_offset} to {committed}, compacted was {write.start} to {write.end}"
        raise StaleCompactionError(f"{row.key} is committed from {text}")


Place = tuple[int, int, int]
"""Base offset, last offset, leader epoch of a batch."""


def check_tiling(write: Compact, found: list[Place], new: list[Place]) -> None:
    """Those that come begin where some of those that go begin, end where one ends, and are of the same epochs."""
    epochs = {base: epoch for base, _, epoch in found}
    ends = {last + 1 for _, last, _ in found}
    expected = write.start
    for base, last, epoch in new:
        if base != expected or last < base or base not in epochs or last + 1 not in ends:
            raise StaleCompactionError(f"compacted batch {base} to {last} is not at offset {expected}")
        if any(epochs[other] != epoch for other in epochs if base <= other <= last):
            raise StaleCompactionError(f"compacted batch {base} to {last} is of several leader epochs")
        expected = last + 1
    if expected != write.end:
        raise StaleCompactionError(f"compacted batches end at {expected}, not {write.end}")


def _head_of(row: LogRow, base: int, packed: bytes) -> BatchHead:
    return layout.unpack_head(layout.offset_key(row.data, base), memoryview(packed))


def _place(base: int, head: BatchHead) -> Place:
    return base, head.last_offset, head.leader_epoch


def _sizes(batches: list[tuple[int, BatchHead]]) -> int:
    return sum(head.row_bytes for _, head in batches)


def _counts(batches: list[tuple[int, BatchHead]]) -> int:
    return sum(head.header.record_count for _, head in batches)
