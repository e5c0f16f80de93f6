"""Appends to one led partition of __offsets: one batch at a time, and what comes meanwhile is in the next.

Owns the order of all that is written there in one leadership, and the table of what is committed. Invariants: the table
is applied a batch at a time, when the high watermark has passed the batch, so it is neither ahead of the log nor behind
it; what a batch holds is decided when it is formed, on a table that has all before it; a batch whose fate is not known
ends the log's service for this leadership, since nothing later may be decided without it (rule 31). Loop thread only.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from penstock.node.clock import wall_ms
from penstock.node.group.offsets import OffsetTable
from penstock.node.group.records import Commit, CommitRecord, OffsetsRecord, encode
from penstock.node.partition import AppendRequest, AppendResult, Done
from penstock.node.waiters import NEVER_MS
from penstock.protocol.batch import NOT_STAMPED, BatchHeader, header_of, seal
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.protocol.record_set import encode_record_set
from penstock.raft.image import GroupPartition
from penstock.v1 import common_pb2, record_pb2

BATCH_BYTES = 1024 * 1024
"""A batch takes no more work once its records have this much."""
WAITING_WORK = 10_000
"""Pieces of work that wait for their batch; more are refused."""
_LOST = {Reason.OUTCOME_UNKNOWN, Reason.NOT_LEADER, Reason.STALE_LEADER_EPOCH}
"""After these nothing more can be appended in this leadership, or what was is not known."""


class Staged(Protocol):
    """What is committed once the batch being formed is in the log."""

    def committed(self, group_id: str, partition: GroupPartition) -> Commit | None:
        """See OffsetTable.committed."""
        ...


class Work(Protocol):
    """A part of a batch."""

    begins: bool
    """It is decided on the table alone, so it begins its batch."""

    def make(self, staged: Staged) -> Sequence[OffsetsRecord]:
        """Decide its records, on what is committed by then; [] where nothing is to be written."""
        ...

    def done(self, error: PenstockError | None) -> bool:
        """Told the fate of what was made: None where it is committed (or there was nothing); OUTCOME_UNKNOWN: perhaps.

        Returns whether it is owed still: then it is made again, before all that came later.
        """
        ...


class _Batch:
    """One that is being formed."""

    def __init__(self, table: OffsetTable) -> None:
        self.work: list[Work] = []
        self.records: list[OffsetsRecord] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.size = 0
        self._table = table
        self._commits: dict[tuple[str, GroupPartition], Commit | None] = {}

    def committed(self, group_id: str, partition: GroupPartition) -> Commit | None:
        """See Staged."""
        key = (group_id, partition)
        return self._commits[key] if key in self._commits else self._table.committed(group_id, partition)

    def take(self, work: Work) -> None:
        """Add what the work decides."""
        self.work.append(work)
        for record in work.make(self):
            key, value = encode(record)
            self.records.append(record)
            self.keys.append(key)
            self.values.append(value)
            self.size += len(key) + len(value or b"")
            if isinstance(record, CommitRecord):
                self._commits[record.group_id, record.partition] = record.commit


class OffsetsLog:
    """`append`: to the partition, in this leadership alone. `lost`: told once, when nothing more can be appended."""

    def __init__(
        self, table: OffsetTable, append: Callable[[AppendRequest, Done], None], lost: Callable[[PenstockError], None]
    ) -> None:
        self._table = table
        self._append = append
        self._lost = lost
        self._queue: deque[Work] = deque()
        self._owed: list[Work] = []
        """What failed and must be written before anything else is; in its order."""
        self._busy = False
        self._halted = False
        self._over: PenstockError | None = None

    def submit(self, work: Work) -> None:
        """Append it as soon as possible. Raises OVERLOADED, and why nothing can be appended any more."""
        if self._over is not None:
            raise self._over
        if len(self._queue) >= WAITING_WORK:
            raise PenstockError(Reason.OVERLOADED, f"{WAITING_WORK} commits wait for this coordinator's log")
        self._add(work)

    def submit_own(self, work: Work) -> None:
        """Append what the coordinator itself has to write: little, and never refused for being too much."""
        if self._over is not None:
            work.done(self._over)
        else:
            self._add(work)

    def _add(self, work: Work) -> None:
        self._queue.append(work)
        if not self._busy and not self._owed:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)

    def try_again(self) -> None:
        """Write what is owed, if that can be done by now, and what waits behind it. Called now and then."""
        if self._owed and not self._busy and self._over is None:
            self._busy = True
            self._next()

    def close(self, error: PenstockError) -> None:
        """The leadership is over: what waits is refused. What is under way is told its fate by the partition."""
        if self._over is None:
            self._over = error
        waiting, self._queue, self._owed = [*self._owed, *self._queue], deque(), []
        for work in waiting:
            work.done(error)

    def _next(self) -> None:
        """Begin the next batch; work that has nothing to write is done at once."""
        self._queue.extendleft(reversed(self._owed))
        self._owed.clear()
        batch = _Batch(self._table)
        while self._queue and batch.size < BATCH_BYTES and not (batch.records and self._queue[0].begins):
            batch.take(self._queue.popleft())
        if not batch.records:
            self._busy = False
            self._tell(batch.work, None)
            return
        try:
            self._append(append_of(batch.keys, batch.values, wall_ms()), partial(self._finished, batch))
        except PenstockError as error:
            self._finished(batch, error)

    def _finished(self, batch: _Batch, outcome: AppendResult | PenstockError) -> None:
        error = outcome if isinstance(outcome, PenstockError) else None
        if error is None:
            for record in batch.records:
                self._table.apply(record)
        self._halted = error is not None and error.reason in _LOST
        asyncio.get_running_loop().call_soon(self._go_on)
        self._tell(batch.work, error)
        if error is not None and self._halted and self._over is None:
            self._lost(error)
        elif error is not None and self._owed:  # what waits cannot be written before that: it need not wait
            waiting, self._queue = self._queue, deque()
            self._tell(waiting, error)

    def _tell(self, done: Iterable[Work], error: PenstockError | None) -> None:
        self._owed += [work for work in done if work.done(error)]

    def _go_on(self) -> None:
        if self._halted:  # what waits is told by `close`
            return
        if self._queue and not self._owed:
            self._next()
        else:
            self._busy = False


def append_of(keys: Sequence[bytes | None], values: Sequence[bytes | None], now_ms: int) -> AppendRequest:
    """A batch of these records, for all in-sync replicas. It has no deadline: its fate must become known."""
    record_set = encode_record_set(values, keys, {}, [(0, now_ms)])
    header = BatchHeader(
        record_pb2.COMPRESSION_NONE, len(keys), 0, now_ms, now_ms, *NOT_STAMPED, transactional=False, control=False
    )
    batch = seal(record_set, header)
    payload = batch.SerializeToString()
    return AppendRequest(header_of(batch), payload, common_pb2.ACKS_ALL, now_ms, NEVER_MS)
