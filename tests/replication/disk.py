"""A disk of the replication world: what a node has durably, and its queue of writes. One group of writes at a time.

As the real store: a write of a lower leader epoch than the one acted in fails (rule 26); an append that does not begin
at the log end fails, and so does all that is queued behind a failed append; producer state is in the append's
transaction and a truncation undoes it (rule 13).
"""

from typing import NamedTuple, Self

from penstock.node.replication.epochs import EpochTable, LogBounds
from penstock.protocol.batch import BatchHeader
from penstock.storage import LogBatch
from penstock.storage.producers import ProducerState, advance
from penstock.v1 import record_pb2

PRODUCERS = (0, 1)


class Entry(NamedTuple):
    """One record: the epoch that wrote it, and which producer's which sequence it is."""

    leader_epoch: int
    producer: int
    sequence: int

    @property
    def value(self) -> tuple[int, int]:
        return self.producer, self.sequence

    def __str__(self) -> str:
        return f"p{self.producer}.{self.sequence}@{self.leader_epoch}"


def header_of(producer: int, sequence: int) -> BatchHeader:
    return BatchHeader(
        record_pb2.COMPRESSION_NONE, 1, 0, 0, 0, producer, 0, sequence, transactional=False, control=False
    )


def batch_at(offset: int, entry: Entry) -> LogBatch:
    return LogBatch(offset, offset, entry.leader_epoch, 0, header_of(entry.producer, entry.sequence), b"")


class Write(NamedTuple):
    """Queued at a disk. `kind` is append, truncate, reset, act or mark."""

    kind: str
    leader_epoch: int
    at: int = 0
    entries: tuple[Entry, ...] = ()
    as_leader: bool = False


class Disk:
    """See the module."""

    def __init__(self, store_id: bytes) -> None:
        self.store_id = store_id
        self.entries: list[Entry] = []
        self.acted_epoch = -1
        self.high_watermark = 0
        self.start_ids: list[bytes] = []
        self.queue: list[Write] = []

    def copy(self) -> Self:
        """What a backup of the files would hold."""
        twin = type(self)(self.store_id)
        twin.entries = list(self.entries)
        twin.acted_epoch, twin.high_watermark = self.acted_epoch, self.high_watermark
        twin.start_ids = list(self.start_ids)
        return twin

    def commit(self, fail_at: int | None) -> list[tuple[Write, bool]]:
        """One group: all that is queued; from the write `fail_at` on, the log's writes fail."""
        queue, self.queue = self.queue, []
        outcomes = []
        failing = False
        for i, write in enumerate(queue):
            failing = failing or i == fail_at
            done = not failing and self._apply(write)
            failing = failing or (not done and write.kind == "append")
            outcomes.append((write, done))
        return outcomes

    def _apply(self, write: Write) -> bool:
        if write.kind == "mark":
            self.high_watermark = max(self.high_watermark, write.at)
            return True
        if self._is_fenced(write):
            return False
        if write.kind == "append":
            if write.at != len(self.entries):
                return False
            self.entries += write.entries
        elif write.kind == "truncate":
            del self.entries[write.at :]
        elif write.kind == "reset":
            self.entries.clear()
        elif write.kind == "act":
            self.acted_epoch = max(self.acted_epoch, write.leader_epoch)
        return True

    def _is_fenced(self, write: Write) -> bool:
        return write.leader_epoch < self.acted_epoch

    def producer(self, producer: int) -> ProducerState | None:
        state = None
        for offset, entry in enumerate(self.entries):
            if entry.producer == producer:
                state = advance(state, header_of(producer, entry.sequence), offset, 0)
        return state

    def starts(self) -> list[tuple[int, int]]:
        starts: list[tuple[int, int]] = []
        for offset, entry in enumerate(self.entries):
            if not starts or starts[-1][0] != entry.leader_epoch:
                starts.append((entry.leader_epoch, offset))
        return starts

    def bounds(self) -> LogBounds:
        end = len(self.entries)
        return LogBounds(EpochTable(self.starts(), end), 0, end, min(self.high_watermark, end))
