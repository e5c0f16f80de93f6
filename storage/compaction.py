"""Log compaction: which records go, and what batches are left (KIP-58; tombstones as KIP-534). Pure.

Two readings of a log's committed part, first offset to `end`. `Survey` learns of each key its latest offset, from the
offset on below which the log is compacted already. `Rewriter` then takes every batch in order and says what is put in
its place. A record stays if it is the latest of its key or has none. Offsets stay, and batches tile on: those that
lost records are made into fewer and fuller ones, those that lost all are merged into their neighbours.

Memory: the keys that a survey holds are bounded by `max_bytes`; the log is compacted only as far as they reach, and
from there on by the next round. Beside them a few batches.

A tombstone that is the latest of its key goes when it has been found so for `delete_retention_ms`, and every replica
has passed it (rule 19). What a replica needs that has not (it was filled from elsewhere meanwhile) is in
`Step.tombstones_below`; see docs/adr/0015.

Batches of different leader epochs are never merged, so epochs keep their bounds. A batch that the log remembers of an
idempotent producer keeps its place and stamp; so a replica that is filled from this log knows the producer as well.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import le, lt
from typing import NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError

from penstock.protocol.batch import NO_TIMESTAMP, NOT_STAMPED, BatchHeader, header_of, seal
from penstock.protocol.columns import Columns, columns_of
from penstock.protocol.compression import decompress
from penstock.storage import layout
from penstock.storage.layout import NO_TIME
from penstock.storage.types import APPEND_TIME, LogBatch
from penstock.v1 import common_pb2, record_pb2

MERGED_BYTES = 256 * 1024
"""Batches are merged up to this much, uncompressed."""
SMALL_BYTES = 16 * 1024
"""A batch that lost nothing is merged if it is smaller than this and others before it are to be."""
MERGED_BATCHES = 512
"""At most so many batches are made into one."""
MAX_SPAN = 2**31 - 1
"""At most so many offsets are in a merged batch."""
ENTRY_BYTES = 168
"""What an entry of a survey takes, beside the key's bytes: two objects and their place in the table (measured)."""
DIGEST_ABOVE = 32
"""Longer keys are known by a digest, which is longer than that: it cannot be another's key."""


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """What the topic says. Times in ms; `now_ms`: wall time."""

    now_ms: int
    delete_retention_ms: int
    passed_offset: int
    """Every replica has what is below it."""


class StoredRow(NamedTuple):
    """A batch as it was read."""

    batch: LogBatch
    position: int
    tombstones_since_ms: int
    pinned: bool
    """The log remembers it of its producer."""


class Step(NamedTuple):
    """Rows to be put in the place of the batches of [start, end). Made of neighbouring batches that change."""

    start: int
    end: int
    replaced: tuple[tuple[int, int], ...]  # base offset and payload CRC
    rows: tuple[tuple[int, bytes], ...]  # base offset and row
    tombstones_below: int

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return sum(len(row) for _, row in self.rows)


class Survey:
    """The latest offset of each key."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._latest: dict[bytes, int] = {}
        self._key_bytes = 0

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, batch: LogBatch) -> bool:
        """Learn the batch's keys; False: it is full, and the batch is not in it. The first batch always fits."""
        keys, offsets = _keys_of(batch)
        size = sum(map(len, keys))
        if self._latest and self._size(len(keys), size) > self._max_bytes:
            new = set(keys) - self._latest.keys()
            if self._size(len(new), sum(map(len, new))) > self._max_bytes:
                return False
        before = len(self._latest)
        self._latest.update(zip(keys, offsets, strict=True))
        if keys:
            self._key_bytes += (len(self._latest) - before) * size // len(keys)
        return True

    def latest(self, keys: list[bytes]) -> list[int]:
        """Of each key the latest offset, or -1."""
        get = self._latest.get
        return [get(key, -1) for key in keys]

    def _size(self, more: int, more_bytes: int) -> int:
        return (len(self._latest) + more) * ENTRY_BYTES + self._key_bytes + more_bytes


class _Survivor(NamedTuple):
    offset: int
    time_ms: int
    record: record_pb2.Record


@dataclass(slots=True)
class _Merge:
    """Neighbouring batches that are being made into one."""

    rows: list[StoredRow] = field(default_factory=list)
    survivors: list[_Survivor] = field(default_factory=list)
    size: int = 0
    tombstones_since_ms: int = NO_TIME
    tombstones_below: int = 0


class _Verdict(NamedTuple):
    """What becomes of a batch's records."""

    kept: list[_Survivor] | None  # None: all of them
    dropped_below: int  # offset after the last tombstone that goes for its age; 0: none
    tombstones: int  # that are kept


class Rewriter:
    """Takes the batches below the survey's end in order, from the log's first one on; gives the steps."""

    def __init__(self, data: int, log_start_offset: int, survey: Survey, policy: CompactionPolicy) -> None:
        self._data = data
        self._log_start = log_start_offset
        self._survey = survey
        self._policy = policy
        self._merge = _Merge()
        self.due_ms: int | None = None
        """Wall time when the first of the tombstones that are left may go; None: there are none that wait for time."""

    def take(self, row: StoredRow) -> Iterator[Step]:
        """Take the next batch."""
        batch = row.batch
        if batch.header.record_count == 0:
            if self._merge.rows or row.pinned:
                yield from self._join(row, [], 0)
            else:
                self._merge = _Merge([row])
            return
        contents = _contents_of(batch)
        if contents is None:
            yield from self.finish()
            return
        kept, dropped_below, tombstones = self._judge(row, contents)
        since = NO_TIME
        if tombstones:
            since = self._policy.now_ms if row.tombstones_since_ms == NO_TIME else row.tombstones_since_ms
            due_ms = since + self._policy.delete_retention_ms
            self.due_ms = due_ms if self.due_ms is None else min(self.due_ms, due_ms)
        if kept is None and since in {NO_TIME, row.tombstones_since_ms} and not self._absorbs(row):
            yield from self.finish()
            return
        row = row._replace(tombstones_since_ms=since)
        yield from self._join(row, contents.survivors(batch) if kept is None else kept, dropped_below)

    def finish(self) -> Iterator[Step]:
        """There are no more batches, or the next one stays as it is."""
        merge, self._merge = self._merge, _Merge()
        if len(merge.rows) > 1 or merge.survivors or merge.tombstones_below or self._is_new(merge):
            yield self._step(merge)

    def _is_new(self, merge: _Merge) -> bool:
        """One empty batch alone stays as it is."""
        return bool(merge.rows) and merge.rows[0].batch.header.record_count > 0

    # ---- which records stay

    def _judge(self, row: StoredRow, contents: "_Contents") -> _Verdict:
        batch = row.batch
        if contents.columns is not None and batch.base_offset >= self._log_start:  # no tombstones
            latest = self._survey.latest(_known_by(contents.columns.keys or []))
            if all(map(le, latest, range(batch.base_offset, batch.last_offset + 1))):
                return _Verdict(None, 0, 0)
        return self._judge_each(row, contents.records())

    def _judge_each(self, row: StoredRow, records: list[record_pb2.Record]) -> _Verdict:
        policy, batch, since = self._policy, row.batch, row.tombstones_since_ms
        aged = since != NO_TIME and policy.now_ms - since >= policy.delete_retention_ms
        keyed = [record.HasField("key") for record in records]
        keys = [record.key for record, has_key in zip(records, keyed, strict=True) if has_key]
        latest = iter(self._survey.latest(_known_by(keys)))
        kept: list[_Survivor] = []
        dropped_below = tombstones = 0
        for record, has_key in zip(records, keyed, strict=True):
            offset = batch.base_offset + record.offset_delta
            if (has_key and next(latest) > offset) or offset < self._log_start:
                continue
            if has_key and not record.HasField("value"):
                if aged and offset < policy.passed_offset:
                    dropped_below = max(dropped_below, offset + 1)
                    continue
                tombstones += 1
            kept.append(_Survivor(offset, _time_of(batch, record), record))
        return _Verdict(None if len(kept) == len(records) else kept, dropped_below, tombstones)

    # ---- what is put in the place of batches

    def _absorbs(self, row: StoredRow) -> bool:
        """A batch that loses nothing is merged with those before it that do."""
        merge = self._merge
        return bool(merge.rows) and not row.pinned and len(row.batch.payload) < SMALL_BYTES and self._fits(row)

    def _fits(self, row: StoredRow) -> bool:
        """Whether the batch may be merged with those before it."""
        merge = self._merge
        if not merge.rows:
            return True
        first, last = merge.rows[0].batch, row.batch
        return (
            first.leader_epoch == last.leader_epoch
            and len(merge.rows) < MERGED_BATCHES
            and last.last_offset - first.base_offset < MAX_SPAN
        )

    def _join(self, row: StoredRow, survivors: list[_Survivor], dropped_below: int) -> Iterator[Step]:
        size = sum(survivor.record.ByteSize() for survivor in survivors)
        merge = self._merge
        if row.pinned or not self._fits(row) or (merge.size + size > MERGED_BYTES and merge.survivors):
            yield from self.finish()
            merge = self._merge
        merge.rows.append(row)
        merge.survivors += survivors
        merge.size += size
        merge.tombstones_since_ms = max(merge.tombstones_since_ms, row.tombstones_since_ms)
        merge.tombstones_below = max(merge.tombstones_below, dropped_below)
        if row.pinned:
            yield from self.finish()

    def _step(self, merge: _Merge) -> Step:
        rows = merge.rows
        base, end = rows[0].batch.base_offset, rows[-1].batch.last_offset + 1
        key = layout.offset_key(self._data, base)
        made = _merged(rows, merge.survivors)
        head = layout.pack_batch(key, made, rows[0].position, b"", merge.tombstones_since_ms)
        replaced = tuple((row.batch.base_offset, google_crc32c.value(row.batch.payload)) for row in rows)
        return Step(base, end, replaced, ((base, head + made.payload),), merge.tombstones_below)


def begin_at(batch: LogBatch, offset: int) -> LogBatch:
    """The batch without what is below `offset`, which is in it, for a replica that ends there; without its producer.

    Raises ValueError where its records cannot be read.
    """
    contents = _contents_of(batch) if batch.header.record_count else _Contents(None, b"")
    if contents is None:
        raise ValueError(f"the batch at offset {batch.base_offset} cannot be divided: its records are not readable")
    kept = [survivor for survivor in contents.survivors(batch) if survivor.offset >= offset]
    return _sealed(batch, offset, kept, batch.header._replace(**NOT_STAMPED._asdict()))


def _merged(rows: list[StoredRow], survivors: list[_Survivor]) -> LogBatch:
    """One batch of several. A single one that is pinned keeps its stamp."""
    first, last = rows[0].batch, rows[-1].batch
    filled = next((row.batch for row in rows if row.batch.header.record_count), first)
    header = filled.header
    if not rows[0].pinned:
        header = header._replace(**NOT_STAMPED._asdict())
    appended = max(row.batch.append_time_ms for row in rows)
    return _sealed(
        first._replace(last_offset=last.last_offset, append_time_ms=appended), first.base_offset, survivors, header
    )


def _sealed(batch: LogBatch, base: int, survivors: list[_Survivor], header: BatchHeader) -> LogBatch:
    """The batch with these records. Their times are in them from now on, whichever clock they are by."""
    record_set = record_pb2.RecordSet()
    base_time = survivors[0].time_ms if survivors else NO_TIMESTAMP
    for offset, time_ms, record in survivors:
        added = record_set.records.add()
        added.CopyFrom(record)
        added.offset_delta = offset - base
        added.timestamp_delta_ms = time_ms - base_time
    header = header._replace(
        record_count=len(survivors),
        base_timestamp_ms=base_time,
        max_timestamp_ms=max((survivor.time_ms for survivor in survivors), default=NO_TIMESTAMP),
        compression=header.compression if survivors else record_pb2.COMPRESSION_NONE,
    )
    message = seal(record_set.SerializeToString(), header)
    created = common_pb2.TIMESTAMP_TYPE_CREATE
    return batch._replace(
        base_offset=base, header=header_of(message), payload=message.SerializeToString(), timestamp_type=created
    )


# ---- reading batches


class _Contents:
    """The records of a batch: as columns where each of its offsets has one, or one by one."""

    def __init__(self, columns: Columns | None, data: bytes, records: list[record_pb2.Record] | None = None) -> None:
        self.columns = columns
        self._data = data
        self._records = records

    def records(self) -> list[record_pb2.Record]:
        """One by one."""
        if self._records is None:
            self._records = list(record_pb2.RecordSet.FromString(self._data).records)
        return self._records

    def survivors(self, batch: LogBatch) -> list[_Survivor]:
        """All of them."""
        base = batch.base_offset
        return [_Survivor(base + record.offset_delta, _time_of(batch, record), record) for record in self.records()]


def _contents_of(batch: LogBatch) -> _Contents | None:
    """The records of a batch; None where it must stay as it is: control batches, and what is not readable.

    A node does not look at what it stores; so a program may have sealed records that are none, or not in order.
    """
    header = batch.header
    if header.control or header.transactional:
        return None
    message = record_pb2.RecordBatch.FromString(batch.payload)
    try:
        data = decompress(message.records, message.compression, message.records_size)
        if header.record_count == batch.last_offset - batch.base_offset + 1:
            columns = columns_of(data, header.record_count, header.base_timestamp_ms)
            if columns is not None:
                return _Contents(columns, data)
        records = list(record_pb2.RecordSet.FromString(data).records)
    except (ValueError, KeyError, DecodeError):
        return None
    deltas = [record.offset_delta for record in records]
    in_order = all(map(lt, deltas, deltas[1:])) and (not deltas or batch.base_offset + deltas[-1] <= batch.last_offset)
    return _Contents(None, data, records) if in_order and len(records) == header.record_count else None


def _keys_of(batch: LogBatch) -> tuple[list[bytes], "range | list[int]"]:
    """What the keys are known by, and their offsets."""
    contents = _contents_of(batch) if batch.header.record_count else None
    if contents is None:
        return [], []
    if contents.columns is not None:
        keys = contents.columns.keys
        return ([], []) if keys is None else (_known_by(keys), range(batch.base_offset, batch.last_offset + 1))
    keyed = [record for record in contents.records() if record.HasField("key")]
    return _known_by([record.key for record in keyed]), [batch.base_offset + record.offset_delta for record in keyed]


def _known_by(keys: list[bytes]) -> list[bytes]:
    if not keys or max(map(len, keys)) <= DIGEST_ABOVE:
        return keys
    return [key if len(key) <= DIGEST_ABOVE else _digest(key) for key in keys]


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=DIGEST_ABOVE + 1).digest()


def _time_of(batch: LogBatch, record: record_pb2.Record) -> int:
    if batch.timestamp_type == APPEND_TIME:
        return batch.append_time_ms
    return batch.header.base_timestamp_ms + record.timestamp_delta_ms
