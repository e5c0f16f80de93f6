"""Reading a store as a whole: every row, and whether they are all there. Costs a read of the file."""

from typing import TYPE_CHECKING

import lmdb

from penstock.storage.layout import DATABASES, OFFSET_KEY, LogRow, damaged, unpack_batch, unpack_log
from penstock.storage.rows import Rows

if TYPE_CHECKING:
    from penstock.storage.store import Store

Spans = dict[int, tuple[int, int]]
"""By data id: the base offset of the first batch, and the offset after the last one."""


def check_whole(store: "Store") -> None:
    """Raise DamagedStoreError unless every row is whole and none is missing, as far as others tell of it."""
    environment = store.environment
    try:
        with environment.begin() as txn:
            rows = Rows(txn, environment.db)
            logs = [unpack_log(body) for _, body in rows.all("partitions")]
            for space in DATABASES:
                if space not in {"partitions", "batches"}:
                    for _ in rows.all(space):
                        pass
            spans = _spans(rows)
            for row in logs:
                _check_span(row, spans.get(row.data))
        for log in store.logs():
            log.epochs()  # each names the one before it
            log.replica_seed()  # its producers are known in two places
    except lmdb.Error as error:
        raise damaged(str(error)) from error


def _spans(rows: Rows) -> Spans:
    """Read all batches, which must tile: those of a log, and those that wait to be deleted."""
    spans: Spans = {}
    for key, row in rows.walk("batches"):
        batch = unpack_batch(key, row)
        data = OFFSET_KEY.unpack(key)[0]
        first, expected = spans.get(data, (batch.base_offset, batch.base_offset))
        if batch.base_offset != expected:
            raise damaged(f"local partition {data} has no batch at offset {expected}")
        spans[data] = (first, batch.last_offset + 1)
    return spans


def _check_span(row: LogRow, span: tuple[int, int] | None) -> None:
    """The batches of a log must reach from its start or before it (what waits to be deleted) to its end."""
    start, end = row.state.log_start_offset, row.state.log_end_offset
    first, last = span if span is not None else (end, end)
    if first > start or last != end:
        raise damaged(f"{row.key} has batches from {first} to {last}, its row says {start} to {end}")


def counts(store: "Store") -> dict[str, int]:
    """How many rows each key space has."""
    with store.environment.begin() as txn:
        return {name: txn.stat(database)["entries"] for name, database in store.environment.db.items()}
