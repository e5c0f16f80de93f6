"""Deleting what was dropped, reset or trimmed, in chunks, between other commits."""

from typing import TYPE_CHECKING, Any

from penstock.storage import layout
from penstock.storage.layout import GARBAGE_ALL, LogRow

if TYPE_CHECKING:
    from penstock.storage.store import Store

_SPACES = ("batches", "epochs", "times", "producers", "undo")


def delete_chunk(
    store: "Store", txn: Any, data: int, below: int, max_rows: int
) -> tuple[bool, tuple[int, LogRow] | None]:
    """Delete up to `max_rows` rows; whether that was all, and the log's row where its size changed."""
    if below == GARBAGE_ALL:
        done, freed = _delete_all(store, txn, data, max_rows), None
    else:
        done, freed = _delete_below(store, txn, data, below, max_rows)
    if done:
        txn.delete(layout.LOCAL.pack(data), db=store.environment.db["garbage"])
    return done, freed


def _delete_all(store: "Store", txn: Any, data: int, max_rows: int) -> bool:
    prefix = layout.LOCAL.pack(data)
    for space in _SPACES:
        with txn.cursor(store.environment.db[space]) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()[:4]) == prefix:
                if max_rows == 0:
                    return False
                max_rows -= 1
                found = cursor.delete() and bool(cursor.key())
    return True


def _delete_below(
    store: "Store", txn: Any, data: int, below: int, max_rows: int
) -> tuple[bool, tuple[int, LogRow] | None]:
    """Delete whole batches below an offset, and their entries in the time index; the batch that holds it stays."""
    local = store.local_of(data)
    if local is None:  # dropped or reset since: all of it is garbage by another entry
        return True, None
    prefix, freed, done = layout.LOCAL.pack(data), 0, False
    with txn.cursor(store.environment.db["batches"]) as cursor:
        found = cursor.set_range(prefix)
        for _ in range(max_rows):
            if not found or bytes(cursor.key()[:4]) != prefix:
                done = True
                break
            if layout.unpack_batch(bytes(cursor.key()), cursor.value()).last_offset >= below:
                done = True
                break
            freed += len(cursor.value())
            found = cursor.delete() and bool(cursor.key())
    if done:
        _delete_times(store, txn, data, below)
    row = store.row_of(local)
    row = row._replace(state=row.state._replace(size_bytes=row.state.size_bytes - freed))
    txn.put(layout.LOCAL.pack(local), layout.pack_log(local, row), db=store.environment.db["partitions"])
    return done, (local, row)


def _delete_times(store: "Store", txn: Any, data: int, below: int) -> None:
    prefix = layout.LOCAL.pack(data)
    with txn.cursor(store.environment.db["times"]) as cursor:
        found = cursor.set_range(prefix)
        while found and bytes(cursor.key()[:4]) == prefix:
            if layout.read_time_key(bytes(cursor.key()))[2] >= below:
                return
            found = cursor.delete() and bool(cursor.key())
