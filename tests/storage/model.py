"""What a store should hold, in plain lists and dicts. Shares no code with the store but the types."""

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from penstock.protocol.batch import read as read_records
from penstock.storage.producers import ProducerBatch, ProducerState
from penstock.storage.types import EpochEnd, EpochStart, LogBatch, ReplicaSeed
from penstock.v1 import common_pb2, record_pb2


class ModelRecord(NamedTuple):
    time_ms: int
    key: bytes | None
    value: bytes | None
    leader_epoch: int


@dataclass
class ModelLog:
    """`history`: every batch since the log began, also those below its start; it decides epochs and producers.

    `known` is what is known of producers at `known_offset`; the batches from there on are added to it. `exact`: that is
    what the batches say, nothing was forgotten before its time.
    """

    start: int = 0
    end: int = 0
    high_watermark: int = 0
    acted: int = -1
    history: list[LogBatch] = field(default_factory=list)
    seed_epochs: tuple[EpochStart, ...] = ()
    known: dict[int, ProducerState] = field(default_factory=dict)
    known_offset: int = 0
    exact: bool = True
    cleaned: int = 0
    tombstones_below: int = 0
    rewritten_end: int = 0

    def copy(self) -> "ModelLog":
        return replace(self, history=list(self.history), known=dict(self.known))

    @property
    def batches(self) -> list[LogBatch]:
        return [batch for batch in self.history if batch.last_offset >= self.start]

    @property
    def first(self) -> int:
        batches = self.batches
        return batches[0].base_offset if batches else self.end

    @property
    def last_epoch(self) -> int:
        epochs = self.epochs()
        return epochs[-1].leader_epoch if epochs else -1

    @property
    def boundaries(self) -> list[int]:
        return [batch.base_offset for batch in self.batches] + [self.end]

    def epochs(self) -> list[EpochStart]:
        found = list(self.seed_epochs)
        for batch in self.history:
            if not found or found[-1].leader_epoch != batch.leader_epoch:
                found.append(EpochStart(batch.leader_epoch, batch.base_offset))
        return found

    def end_of_epoch(self, asked: int) -> EpochEnd | None:
        epochs = self.epochs()
        place = bisect_right([epoch.leader_epoch for epoch in epochs], asked) - 1
        if place < 0:
            return None
        end = epochs[place + 1].start_offset if place + 1 < len(epochs) else self.end
        return EpochEnd(epochs[place].leader_epoch, end)

    def producers(self) -> dict[int, ProducerState]:
        states = dict(self.known)
        for batch in self.history:
            header = batch.header
            if header.producer_id == -1 or batch.base_offset < self.known_offset:
                continue
            last_sequence = (header.base_sequence + batch.last_offset - batch.base_offset) % 2**31
            place = ProducerBatch(header.base_sequence, last_sequence, batch.base_offset, batch.last_offset)
            before = states.get(header.producer_id)
            goes_on = header.producer_id >= 0 and before and before.producer_epoch == header.producer_epoch
            remembered = [*(before.batches if goes_on and before else ()), place][-5:]
            states[header.producer_id] = ProducerState(header.producer_epoch, tuple(remembered), batch.append_time_ms)
        return states

    def learn_until(self, offset: int) -> None:
        """What is known of producers as of `offset` does not come from the batches any more: they lose their stamps."""
        if offset <= self.known_offset:
            return
        draft = self.copy()
        draft.truncate(offset)
        self.known, self.known_offset = draft.producers(), offset

    def learn(self, producers: dict[int, ProducerState]) -> None:
        """From the log's end on, this is known."""
        self.known, self.known_offset = dict(producers), self.end

    def read(self, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        found: list[LogBatch] = []
        size = 0
        for batch in self.batches:
            if batch.last_offset < start or batch.base_offset >= end:
                continue
            size += len(batch.payload)
            if found and size > max_bytes:
                break
            found.append(batch)
        return found

    def find_timestamp(self, timestamp_ms: int, end: int) -> tuple[int, int] | None:
        for batch in self.batches:
            for record in read_records(record_pb2.RecordBatch.FromString(batch.payload)):
                offset = batch.base_offset + record.offset_delta
                timestamp = batch.header.base_timestamp_ms + record.timestamp_delta_ms
                if batch.timestamp_type == common_pb2.TIMESTAMP_TYPE_APPEND:
                    timestamp = batch.append_time_ms
                if timestamp >= timestamp_ms and self.start <= offset < end:
                    return offset, timestamp
        return None

    def records(self) -> dict[int, "ModelRecord"]:
        """All that can be read, by offset."""
        found = {}
        for batch in self.batches:
            for record in read_records(record_pb2.RecordBatch.FromString(batch.payload)):
                offset = batch.base_offset + record.offset_delta
                timestamp = batch.header.base_timestamp_ms + record.timestamp_delta_ms
                if batch.timestamp_type == common_pb2.TIMESTAMP_TYPE_APPEND:
                    timestamp = batch.append_time_ms
                key = record.key if record.HasField("key") else None
                value = record.value if record.HasField("value") else None
                if offset >= self.start:
                    found[offset] = ModelRecord(timestamp, key, value, batch.leader_epoch)
        return found

    def superseded(self, end: int) -> set[int]:
        """Offsets of records that have a later one of their key below `end`."""
        latest: dict[bytes, int] = {}
        found = set()
        for offset, record in sorted(self.records().items()):
            if record.key is not None and offset < end:
                if record.key in latest:
                    found.add(latest[record.key])
                latest[record.key] = offset
        return found

    def truncate(self, end: int) -> None:
        self.history = [batch for batch in self.history if batch.base_offset < end]
        self.end = end
        self.start = min(self.start, end)
        self.cleaned = min(self.cleaned, end)
        self.rewritten_end = min(self.rewritten_end, end)
        self.tombstones_below = min(self.tombstones_below, end)
        self.high_watermark = min(self.high_watermark, end)

    def reset(self, seed: ReplicaSeed) -> None:
        self.start = self.end = self.high_watermark = seed.start_offset
        self.cleaned = self.rewritten_end = seed.start_offset
        self.tombstones_below = seed.tombstones_below
        self.history, self.seed_epochs = [], seed.epochs
        self.learn(dict(seed.producers))
        self.exact = True
