"""One group of writes inside its transaction: which write touches which log, and what the store learns of it.

Works on copies of the rows and producers it touches; `publish` makes them the store's after the commit. What a write
changes in its log is in `changes`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from penstock.storage import changes, layout
from penstock.storage.errors import (
    AppendFailedError,
    LogDroppedError,
    StaleCompactionError,
    StaleEpochError,
    StoreFullError,
)
from penstock.storage.layout import GARBAGE_ALL, NO_MAXIMUM, LogRow
from penstock.storage.log import Log
from penstock.storage.producer_rows import ProducerRows
from penstock.storage.rewriting import rewrite
from penstock.storage.rows import Rows
from penstock.storage.types import LogState, PartitionKey
from penstock.storage.writes import (
    ActIn,
    Append,
    CheckpointHighWatermark,
    Compact,
    CreateLog,
    DropLog,
    ExpireProducers,
    ForgetStarts,
    MoveStart,
    Outcome,
    RecordStart,
    ResetLog,
    Truncate,
    Write,
)

if TYPE_CHECKING:
    from penstock.storage.store import Store

EXPIRE_ROWS = 512
"""Producers that one ExpireProducers looks at."""
START_ID_BYTES = 16
MAX_STARTS = 4_096
"""Start ids kept while no registration is answered. Older ones are forgotten: the store then counts as a new one."""


class Group:
    """Performs writes in a transaction. Used once."""

    def __init__(
        self, store: "Store", txn: Any, failed: frozenset[int] = frozenset(), refused: StoreFullError | None = None
    ) -> None:
        """`failed`: local ids of logs of which a write before this group failed. `refused`: what appends fail with."""
        self.failed = set(failed)
        self._refused = refused
        self._store = store
        self._rows = Rows(txn, store.environment.db)
        self._producers = ProducerRows(self._rows, store.producer_cache)
        self._logs: dict[int, LogRow] = {}  # by local id
        self._dropped: list[Log] = []
        self._created: list[Log] = []
        self._garbage: dict[int, int] = {}
        self._starts: list[bytes] | None = None
        self._next_id = store.next_id
        self._expiry_position = store.expiry_position

    def perform(self, write: Write) -> Outcome:
        """Perform one write; a refused one changes nothing."""
        try:
            log = self._PERFORM[type(write)](self, write)
        except StaleCompactionError as error:  # nobody relies on it
            return Outcome(write, log_of(write), error)
        except (StaleEpochError, AppendFailedError, LogDroppedError, StoreFullError) as error:
            refused = log_of(write)
            if refused is not None:
                self.failed.add(refused.local)
            return Outcome(write, refused, error)
        return Outcome(write, log, None)

    def flush(self) -> None:
        """Put the rows and producers that changed; the last step before the commit."""
        rows = self._rows
        for local, row in self._logs.items():
            rows.put("partitions", layout.LOCAL.pack(local), layout.pack_log(row))
        self._producers.flush()
        for data, below in self._garbage.items():
            rows.put("garbage", layout.LOCAL.pack(data), layout.U64.pack(below))
        if self._next_id != self._store.next_id:
            rows.put("store", b"next_id", layout.LOCAL.pack(self._next_id))
        if self._starts is not None:
            rows.put("store", b"start_ids", b"".join(self._starts))

    def publish(self) -> None:
        """After the commit: make the store's memory what its file is."""
        store = self._store
        for log in self._created:
            store.add(log)
        for local, row in self._logs.items():
            store.replace(local, row)
        for log in self._dropped:
            store.remove(log)
        store.remember_producers(self._producers.changed)
        store.garbage.update(self._garbage)
        store.next_id = self._next_id
        store.expiry_position = self._expiry_position
        if self._starts is not None:
            store.recorded_starts = tuple(self._starts)

    # ---- helpers

    def _row(self, log: Log) -> LogRow:
        row = self._logs.get(log.local)
        if row is None:
            row = self._store.row(log.local)
        if row is None or (self._dropped and log in self._dropped):
            raise LogDroppedError(f"the log of {log.key} was dropped")
        return row

    def _acting_row(self, log: Log, leader_epoch: int) -> LogRow:
        """The log's row, for a write that acts in a leader epoch (rule 26)."""
        row = self._row(log)
        acted = row.state.acted_epoch
        if leader_epoch < acted:
            raise StaleEpochError(f"write of leader epoch {leader_epoch} to {log.key}, which has acted in {acted}")
        if leader_epoch == acted:
            return row
        return row._replace(state=row.state._replace(acted_epoch=leader_epoch))

    def _continuing_row(self, log: Log, leader_epoch: int) -> LogRow:
        """The same, for a write that was queued in the belief that those before it succeed."""
        row = self._acting_row(log, leader_epoch)
        if log.local in self.failed:
            raise AppendFailedError(f"a write to {log.key} before this one failed")
        return row

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    # ---- what changes a log

    def _append(self, write: Append) -> Log:
        row = self._continuing_row(write.log, write.leader_epoch)
        changes.check_append(write, row.state)
        if self._refused is not None:
            raise self._refused
        self._logs[write.log.local] = changes.append(self._rows, self._producers, row, write.batches)
        return write.log

    def _truncate(self, write: Truncate) -> Log:
        row = self._continuing_row(write.log, write.leader_epoch)
        self._logs[write.log.local] = changes.truncate(self._rows, self._producers, row, write.end_offset)
        return write.log

    def _reset(self, write: ResetLog) -> Log:
        row = self._continuing_row(write.log, write.leader_epoch)
        changes.check_seed(write)
        self._garbage[row.data] = GARBAGE_ALL
        self._logs[write.log.local] = changes.reset(self._rows, self._producers, row, self._new_id(), write.seed)
        return write.log

    def _move_start(self, write: MoveStart) -> Log:
        row = self._acting_row(write.log, write.leader_epoch)
        moved = self._logs[write.log.local] = changes.move_start(self._rows, row, write.log_start_offset)
        if moved.state.first_offset > row.state.first_offset:
            self._garbage[row.data] = moved.state.first_offset
        return write.log

    def _compact(self, write: Compact) -> Log:
        self._logs[write.log.local] = rewrite(self._rows, self._row(write.log), write)
        return write.log

    def _checkpoint(self, write: CheckpointHighWatermark) -> Log:
        row = self._row(write.log)
        self._logs[write.log.local] = changes.checkpoint(row, write.high_watermark)
        return write.log

    def _act_in(self, write: ActIn) -> Log:
        self._logs[write.log.local] = self._acting_row(write.log, write.leader_epoch)
        return write.log

    # ---- whole logs and the store itself

    def _find(self, key: PartitionKey) -> Log | None:
        """The log of a partition as of this write."""
        known = self._store.log(key)
        return next(
            (log for log in [*self._created, known] if log and log.key == key and log not in self._dropped), None
        )

    def _create(self, write: CreateLog) -> Log:
        log = self._find(write.key)
        if log is None:
            log = Log(self._store.environment, write.key, self._new_id(), LogState())
            self._created.append(log)
            self._logs[log.local] = LogRow(write.key, self._new_id(), log.state, 0, NO_MAXIMUM, 0, 0)
        return log

    def _drop(self, write: DropLog) -> Log | None:
        log = self._find(write.key)
        if log is not None:
            self._garbage[self._row(log).data] = GARBAGE_ALL
            self._dropped.append(log)
            self._logs.pop(log.local, None)
            self._rows.delete("partitions", layout.LOCAL.pack(log.local))
        return log

    def _expire_producers(self, write: ExpireProducers) -> None:
        self._expiry_position = self._producers.expire(self._expiry_position, write.before_ms, EXPIRE_ROWS)

    def _record_start(self, write: RecordStart) -> None:
        if len(write.start_id) != START_ID_BYTES:
            raise AppendFailedError(f"a start id has {START_ID_BYTES} bytes, not {len(write.start_id)}")
        self._starts = [*self._current_starts(), write.start_id][-MAX_STARTS:]

    def _forget_starts(self, write: ForgetStarts) -> None:
        starts = self._current_starts()
        if write.start_id in starts:
            self._starts = starts[starts.index(write.start_id) :]

    def _current_starts(self) -> list[bytes]:
        return list(self._store.recorded_starts) if self._starts is None else self._starts

    _PERFORM: ClassVar[dict[type, Callable[["Group", Any], Log | None]]] = {
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


def log_of(write: Write) -> Log | None:
    """The log that a write names by its handle."""
    log: Log | None = getattr(write, "log", None)
    return log
