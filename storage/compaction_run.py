"""One compaction of one log, from reading it to the writes that the store is to perform. Pure but for its source.

Run by a process of its own (storage.compactor), or by a simulator. It reads in short portions, so that no pages stay
pinned; what changed meanwhile shows in the log's content, or when a write is performed (storage.rewriting). It may end
at any point: what was written stands, and the next one begins anew.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from penstock.storage.compaction import CompactionPolicy, Rewriter, Step, StoredRow, Survey
from penstock.storage.errors import StaleCompactionError
from penstock.storage.types import LogState

READ_BYTES = 4 * 1024 * 1024
"""One portion."""


class Stored(NamedTuple):
    """A portion of a log: its content (data id and cuts) and state as of the reading, and batches."""

    content: tuple[int, int]
    state: LogState
    rows: list[StoredRow]


class Source(Protocol):
    """A log (storage.Log)."""

    def stored_rows(self, start: int, end: int, max_bytes: int) -> Stored:
        """Batches from the one that holds `start`, or the log's first one, up to those that begin before `end`."""
        ...


class Task(NamedTuple):
    """What is to be done. Times in ms; `now_ms`: wall time."""

    now_ms: int
    delete_retention_ms: int
    min_lag_ms: int
    passed_offset: int
    max_key_bytes: int


class End(NamedTuple):
    """All steps were given. The log is compacted up to `cleaned_offset` once they are written."""

    cleaned_offset: int
    records: int
    keys: int
    due_ms: int | None
    """Wall time when the next tombstone may go."""


class Run:
    """One compaction. `content`: of the log that was read."""

    def __init__(self, source: Source, task: Task) -> None:
        self._source = source
        self._task = task
        begin = source.stored_rows(0, 0, 0)
        self.content = begin.content
        self._state = begin.state

    def steps(self) -> Iterator[Step | End]:
        """The steps in order, then the End. Raises StaleCompactionError, and what the source does."""
        task, state = self._task, self._state
        survey = Survey(task.max_key_bytes)
        end = self._survey(survey)
        policy = CompactionPolicy(task.now_ms, task.delete_retention_ms, task.passed_offset)
        rewriter = Rewriter(self.content[0], state.log_start_offset, survey, policy)
        records = 0
        for row in self._rows(state.first_offset, end):
            records += row.batch.header.record_count
            yield from rewriter.take(row)
        yield from rewriter.finish()
        yield End(end, records, len(survey), rewriter.due_ms)

    def _survey(self, survey: Survey) -> int:
        """Learn the keys from where the log is compacted on; where that ends: full, too young, not committed."""
        task, state = self._task, self._state
        end = max(state.cleaned_offset, state.first_offset)
        for row in self._rows(end, state.high_watermark):
            batch = row.batch
            young = task.min_lag_ms and batch.max_time_ms > task.now_ms - task.min_lag_ms
            if young or batch.last_offset >= state.high_watermark or not survey.add(batch):
                break
            end = batch.last_offset + 1
        return end

    def _rows(self, start: int, end: int) -> Iterator[StoredRow]:
        position = start
        while position < end:
            portion = self._source.stored_rows(position, end, READ_BYTES)
            if portion.content != self.content:
                raise StaleCompactionError("the log was reset or cut while it was compacted")
            if not portion.rows:
                return  # the log begins later by now
            yield from portion.rows
            position = portion.rows[-1].batch.last_offset + 1
