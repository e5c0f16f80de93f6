"""Trimming, retention and compaction, broken."""

from collections.abc import Iterable, Iterator
from typing import Any

from penstock.node.cleanup.retention import Batch, Choice, Retention, choose
from penstock.node.replication.events import Outputs, Position, SessionKey, WriteStart
from penstock.node.replication.follower import FollowerCore
from penstock.node.replication.leader import LeaderCore
from penstock.node.replication.progress import Progress
from penstock.storage import LogBatch
from penstock.storage.compaction import Rewriter, Step, StoredRow
from penstock.storage.compaction_run import Run, Source, Stored, Task
from penstock.storage.errors import OffsetBelowStartError
from tests.simulation.store.memory import MemoryLog


class PassedByHighWatermark(LeaderCore):
    """Rule 19: what is committed counts as what every replica has."""

    @property
    def passed_offset(self) -> int:
        return self._log.high_watermark


class NoTombstoneGuard(LeaderCore):
    """Rule 19: a replica that has not seen tombstones which are gone goes on with what it has."""

    def _lacks_tombstones(self, position: Position) -> bool:
        return False


class StartNotFollowed(FollowerCore):
    """Rule 22: a follower keeps what the leader dropped."""

    def _follow_start(self) -> Outputs:
        return []


class TrimmedHere(LeaderCore):
    """Rule 22: a trim is answered before the followers have it."""

    def has_trimmed(self, offset: int) -> bool:
        return self._log.log_start_offset >= offset


class TrimmedByFew(LeaderCore):
    """Rule 22: a trim is answered though an ELR member may lead next."""

    def _below_min_insync(self) -> bool:
        return not self.__dict__.get("asked") and super()._below_min_insync()

    def has_trimmed(self, offset: int) -> bool:
        self.__dict__["asked"] = True
        try:
            return super().has_trimmed(offset)
        finally:
            self.__dict__["asked"] = False


class JoinUntrimmed(LeaderCore):
    """Rule 22: who joins the ISR need not have what was trimmed."""

    def _may_join(self, progress: Progress) -> bool:
        self._trimmed = -1
        return super()._may_join(progress)


class StartAboveHighWatermark(LeaderCore):
    """What is not committed is dropped with all that is."""

    def move_start(self, log_start_offset: int) -> Outputs:
        if log_start_offset >= self._log.high_watermark > self._log.log_start_offset:
            return [WriteStart(self.leader_epoch, self._log.log_end_offset)]
        return super().move_start(log_start_offset)


class SeedForgetsTombstones(FollowerCore):
    """A replica that is filled anew does not know which tombstones it need not see."""

    def on_seed(
        self, session: SessionKey, start_offset: int, epochs: tuple[tuple[int, int], ...], tombstones_below: int = 0
    ) -> Outputs:
        return super().on_seed(session, start_offset, epochs)


def keep_half(
    batches: Iterable[Batch], size_bytes: int, high_watermark: int, retention: Retention, now_ms: int | None
) -> Choice:
    """Retention by size leaves less than it says."""
    return choose(
        batches, size_bytes, high_watermark, retention._replace(retention_bytes=retention.retention_bytes // 2), now_ms
    )


# ---- compaction

_survey = Run._survey


def survey_all(self: Run, survey: Any) -> int:
    """What is not committed is compacted too."""
    self._state = self._state._replace(high_watermark=self._state.log_end_offset)
    return _survey(self, survey)


def fits_any_epoch(self: Rewriter, row: StoredRow) -> bool:
    """Batches of several leader epochs are made into one."""
    return len(self._merge.rows) < 6


_stored_rows = MemoryLog.stored_rows


def nothing_pinned(self: MemoryLog, start: int, end: int, max_bytes: int) -> Stored:
    """What the log remembers of producers is not kept in its place."""
    stored = _stored_rows(self, start, end, max_bytes)
    return stored._replace(rows=[row._replace(pinned=False) for row in stored.rows])


_take = Rewriter.take


def take_as_aged(self: Rewriter, row: StoredRow) -> Iterator[Step]:
    """Tombstones go when they are found for the second time, however long the topic says that they stay."""
    aged = row.tombstones_since_ms >= 0
    return _take(self, row._replace(tombstones_since_ms=row.tombstones_since_ms - (1 << 40) if aged else -1))


def rows_as_they_come(self: Run, start: int, end: int) -> Iterator[StoredRow]:
    """The log may be another one from portion to portion."""
    source: Source = self._source
    position = start
    while position < end:
        portion = source.stored_rows(position, end, 400)
        if not portion.rows:
            return
        yield from portion.rows
        position = portion.rows[-1].batch.last_offset + 1


_read = MemoryLog.read


def read_from_the_start(self: MemoryLog, start: int, end: int, max_bytes: int) -> list[LogBatch]:
    """Of the first batch only what is not below the log start can be read, for replicas too."""
    if start < self.state.log_start_offset:
        raise OffsetBelowStartError("below the log start")
    return _read(self, start, end, max_bytes)


def whole(batch: LogBatch, offset: int) -> LogBatch:
    """A replica that ends within a batch is sent all of it."""
    return batch


_init = Run.__init__


def as_of_now(self: Run, source: Source, task: Task) -> None:
    """All tombstones count as passed."""
    _init(self, source, task._replace(passed_offset=1 << 60))
