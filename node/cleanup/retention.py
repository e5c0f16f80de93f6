"""Which batches of a log may go by time and by size. Pure.

Whole batches from the head, and only committed ones. By size a batch goes while those behind it hold `retention_bytes`
or more: at least that much is always kept (as Kafka does with segments). By time it goes when its latest record is
older than `retention_ms`, by the clock that counts for it.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Batch(Protocol):
    """What is asked of a batch: see storage.BatchSummary."""

    @property
    def last_offset(self) -> int:
        """Where it ends."""
        ...

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        ...

    @property
    def max_time_ms(self) -> int:
        """Latest time of a record."""
        ...


class Retention(NamedTuple):
    """A topic's settings. None and 0: unlimited."""

    retention_ms: int | None
    retention_bytes: int

    @property
    def is_unlimited(self) -> bool:
        """Nothing ever goes."""
        return self.retention_ms is None and not self.retention_bytes


class Choice(NamedTuple):
    """What goes, and when to look again."""

    log_start_offset: int | None
    """Where the log is to begin; None: where it does."""
    whole: bool
    """All batches that were shown go: there may be more."""
    due_ms: int | None
    """Wall time when the first batch that stays goes by time; None: not by time, or not known."""
    due_bytes: int | None
    """Size of the log at which it goes by size."""


def choose(
    batches: Iterable[Batch], size_bytes: int, high_watermark: int, retention: Retention, now_ms: int | None
) -> Choice:
    """Choose from the log's first batches, in order. `size_bytes`: of the whole log. `now_ms` None: nothing by time."""
    start, left = None, size_bytes
    for batch in batches:
        if batch.last_offset >= high_watermark:
            return Choice(start, False, None, None)  # noqa: FBT003  a NamedTuple
        by_size = retention.retention_bytes and left - batch.size_bytes >= retention.retention_bytes
        due_ms = None if retention.retention_ms is None else batch.max_time_ms + retention.retention_ms
        by_time = due_ms is not None and now_ms is not None and due_ms < now_ms
        if not (by_size or by_time):
            due_bytes = retention.retention_bytes + batch.size_bytes if retention.retention_bytes else None
            return Choice(start, False, due_ms, due_bytes)  # noqa: FBT003
        start, left = batch.last_offset + 1, left - batch.size_bytes
    return Choice(start, True, None, None)  # noqa: FBT003
