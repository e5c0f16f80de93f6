"""A batch as it was fetched, and its records, parsed when they are asked for. Pure.

Making the records is most of what a consumer does, so they are read as columns where that can be done (nearly always):
a list of all values, one of all keys. Batches for which it cannot be done are read record by record.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Literal

from google.protobuf.message import DecodeError

from penstock.client.errors import LogDamagedError
from penstock.client.records import Headers, Record, TopicPartition
from penstock.protocol.batch import crc_of, header_of
from penstock.protocol.columns import columns_of
from penstock.protocol.compression import decompress
from penstock.protocol.reasons import Reason
from penstock.protocol.record_set import unrolled
from penstock.v1 import common_pb2
from penstock.v1 import record_pb2 as pb

_new: Callable[[type[Record], tuple[object, ...]], Record] = tuple.__new__
"""Makes a Record of a tuple of its fields, in half the time of Record(...). Every use names all the fields."""


class FetchedBatch:
    """A batch as it was fetched; its records are parsed when they are asked for."""

    __slots__ = ("_batch", "_start", "_timestamp_type", "append_time_ms", "base_offset", "last_offset",
                 "leader_epoch", "partition", "record_count", "size", "source", "topic")  # fmt: skip

    def __init__(self, partition: TopicPartition, stored: pb.StoredBatch, start: int, source: object) -> None:
        batch = stored.batch
        self.topic, self.partition = partition
        self.base_offset = stored.base_offset
        self.last_offset = stored.last_offset
        self.leader_epoch = stored.leader_epoch
        self.append_time_ms = stored.append_time_ms
        self.record_count = batch.record_count
        self.size = batch.ByteSize()
        """Bytes of the serialized batch, as credits count them."""
        self.source = source
        """The stream session whose credit this batch has taken."""
        self._batch = batch
        self._start = start
        self._timestamp_type = stored.timestamp_type

    @property
    def base_timestamp_ms(self) -> int:
        """Timestamp of a record = this + its timestamp_delta_ms."""
        return self._batch.base_timestamp_ms

    @property
    def records(self) -> Sequence[pb.Record]:
        """Parse the records from the position on: offset = base_offset + offset_delta. Raises LogDamagedError."""
        return self._parsed(self._data())

    def to_records(self) -> list[Record]:
        """Give the records as values. Raises LogDamagedError."""
        data = self._data()
        dense = self.record_count == self.last_offset - self.base_offset + 1 and not self._is_append_time
        columns = columns_of(data, self.record_count, self.base_timestamp_ms) if self._is_whole and dense else None
        if columns is None:
            return self._each(self._parsed(data))
        keys, values, runs = columns
        count = self.record_count
        fields = zip(
            repeat(self.topic, count),
            repeat(self.partition),
            range(self.base_offset, self.base_offset + count),
            repeat(runs[0][1]) if len(runs) == 1 else unrolled(runs, count),
            keys or repeat(None),
            values,
            repeat(()),
            repeat(self.leader_epoch),
            strict=False,
        )
        return list(map(_new, repeat(Record), fields))

    def _each(self, records: Sequence[pb.Record]) -> list[Record]:
        base, time_ms, epoch = self.base_offset, self._batch.base_timestamp_ms, self.leader_epoch
        topic, partition, new = self.topic, self.partition, _new
        appended_ms = self.append_time_ms if self._is_append_time else None
        return [
            new(Record, (topic, partition, base + record.offset_delta,
                         time_ms + record.timestamp_delta_ms if appended_ms is None else appended_ms,
                         record.key or _absent(record, "key"), record.value or _absent(record, "value"),
                         _headers(record), epoch))
            for record in records
        ]  # fmt: skip

    def _data(self) -> bytes:
        """The serialized RecordSet. Raises LogDamagedError."""
        batch = self._batch
        if batch.control:
            return b""
        try:
            return decompress(batch.records, batch.compression, batch.records_size)
        except (ValueError, KeyError) as error:
            raise self.damaged(f"records of the batch are not readable: {error}") from error

    def _parsed(self, data: bytes) -> Sequence[pb.Record]:
        """The records of the RecordSet from the position on. Raises LogDamagedError."""
        try:
            records = pb.RecordSet.FromString(data).records
        except DecodeError as error:
            raise self.damaged(f"records of the batch are not readable: {error}") from error
        if self._is_whole:
            return records
        return [record for record in records if self.base_offset + record.offset_delta >= self._start]

    @property
    def _is_append_time(self) -> bool:
        """The time of each record is the batch's append time."""
        return self._timestamp_type == common_pb2.TIMESTAMP_TYPE_APPEND

    @property
    def _is_whole(self) -> bool:
        """No record of the batch is below the position."""
        return self._start <= self.base_offset

    def from_offset(self, offset: int) -> "FetchedBatch":
        """Give the same batch without the records below `offset`."""
        stored = pb.StoredBatch(
            base_offset=self.base_offset,
            last_offset=self.last_offset,
            leader_epoch=self.leader_epoch,
            append_time_ms=self.append_time_ms,
            batch=self._batch,
            timestamp_type=self._timestamp_type,
        )
        return FetchedBatch(TopicPartition(self.topic, self.partition), stored, offset, None)

    def check_crc(self) -> None:
        """Raise LogDamagedError where the CRC does not match."""
        if crc_of(header_of(self._batch), self._batch.records) != self._batch.crc32c:
            raise self.damaged("the CRC does not match")

    def damaged(self, why: str) -> LogDamagedError:
        """Make the error that names this batch."""
        where = f"{self.topic}-{self.partition} batch {self.base_offset}..{self.last_offset}"
        return LogDamagedError(Reason.CORRUPT_BATCH, f"{where}: {why}", {"topic": self.topic})


def _absent(record: pb.Record, field: Literal["key", "value"]) -> bytes | None:
    """What an empty field stands for: no bytes, or nothing."""
    return b"" if record.HasField(field) else None


def _headers(record: pb.Record) -> Headers:
    if not record.headers:
        return ()
    return [(header.key, header.value if header.HasField("value") else None) for header in record.headers]
