"""Deleting what was dropped, reset or trimmed, in chunks, between other commits. Nothing here is ever read."""

from penstock.storage import layout
from penstock.storage.layout import GARBAGE_ALL
from penstock.storage.rows import Rows

_SPACES = ("batches", "epochs", "times", "producers", "known")


class _Budget:
    """What one chunk may delete: each row costs something, and its bytes."""

    def __init__(self, rows: int, size: int) -> None:
        self._rows, self._size = rows, size

    def take(self, size: int) -> bool:
        """Whether another row fits."""
        self._rows -= 1
        self._size -= size
        return self._rows >= 0 and self._size >= 0


def delete_chunk(rows: Rows, data: int, below: int, max_rows: int, max_bytes: int) -> bool:
    """Delete up to so many rows and bytes of a data id; whether that was all."""
    budget = _Budget(max_rows, max_bytes)
    done = _delete_all(rows, data, budget) if below == GARBAGE_ALL else _delete_below(rows, data, below, budget)
    if done:
        rows.delete("garbage", layout.LOCAL.pack(data))
    return done


def _delete_all(rows: Rows, data: int, budget: _Budget) -> bool:
    first, beyond = layout.LOCAL.pack(data), layout.LOCAL.pack(data + 1)
    return all(_delete(rows, space, first, beyond, budget) for space in _SPACES)


def _delete_below(rows: Rows, data: int, below: int, budget: _Budget) -> bool:
    """Delete batches below the log start, which is the base of a batch, and their time index."""
    first, until = layout.LOCAL.pack(data), layout.offset_key(data, below)
    return _delete(rows, "batches", first, until, budget) and _delete_times(rows, data, below, budget)


def _delete(rows: Rows, space: str, first: bytes, until: bytes, budget: _Budget) -> bool:
    return all(budget.take(len(row)) for _, row in rows.pop(space, first, until))


def _delete_times(rows: Rows, data: int, below: int, budget: _Budget) -> bool:
    """Both maximum and offset rise from row to row."""
    for key, row in rows.pop("times", layout.LOCAL.pack(data), layout.LOCAL.pack(data + 1)):
        if layout.read_time_key(key)[2] >= below:
            return True
        if not budget.take(len(row)):
            return False
    return True
