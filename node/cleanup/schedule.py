"""Which log is compacted next. Pure.

A log is due when the dirty share of its bytes comes to `min_dirty_ratio`, or when a record that is not compacted is
older than `max_compaction_lag`, neither before `min_compaction_lag` is over; and when a tombstone's time is over. The
dirtiest first, one at a time. A small log that was compacted just now waits a while, and so does one for which nothing
could be done.
"""

from collections.abc import Iterable
from typing import NamedTuple

from penstock.storage.types import PartitionKey

SMALL_BYTES = 1024 * 1024
"""A log with less that is dirty waits after a compaction."""
PAUSE_MS = 60_000


class Candidate(NamedTuple):
    """A log that is to be compacted, as it is now. Times of the wall clock but `idle_ms`."""

    key: PartitionKey
    size_bytes: int
    dirty_bytes: int
    oldest_dirty_ms: int | None
    """Time of the first batch that is not compacted."""
    min_dirty_ratio: float
    min_lag_ms: int
    max_lag_ms: int | None
    tombstones_due_ms: int | None
    idle_ms: int | None
    """Since its last compaction ended; None: there was none since the start."""
    was_vain: bool
    """That one could do nothing."""


def next_log(candidates: Iterable[Candidate], now_ms: int) -> Candidate | None:
    """The log to be compacted now, or None."""
    due = [candidate for candidate in candidates if is_due(candidate, now_ms)]
    return max(due, key=dirty_ratio, default=None)


def dirty_ratio(candidate: Candidate) -> float:
    """Dirty share of the log's bytes, 0 to 1."""
    return candidate.dirty_bytes / candidate.size_bytes if candidate.size_bytes else 0.0


def is_due(candidate: Candidate, now_ms: int) -> bool:
    """Whether the log is to be compacted."""
    waits = candidate.was_vain or candidate.dirty_bytes < SMALL_BYTES
    if candidate.idle_ms is not None and candidate.idle_ms < PAUSE_MS and waits:
        return False
    if candidate.tombstones_due_ms is not None and candidate.tombstones_due_ms <= now_ms:
        return True
    oldest_ms = now_ms if candidate.oldest_dirty_ms is None else candidate.oldest_dirty_ms
    if not candidate.dirty_bytes or (candidate.min_lag_ms and oldest_ms + candidate.min_lag_ms > now_ms):
        return False
    is_old = candidate.max_lag_ms is not None and oldest_ms + candidate.max_lag_ms <= now_ms
    return is_old or dirty_ratio(candidate) >= candidate.min_dirty_ratio
