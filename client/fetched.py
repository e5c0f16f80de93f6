"""A batch as it was fetched, and its records, parsed when they are asked for. Pure.

Making the records is most of what a consumer does, so they are read as columns where that can be done (nearly always):
one list of all values, none for offsets that count on from the first. The records one by one are asked for the rest.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Literal

from google.protobuf.message import DecodeError

from penstock.client.errors import LogDamagedError
from penstock.client.records import Headers, Record, TopicPartition
from penstock.internal.v1 import columns_pb2
from penstock.protocol.batch import crc_of, header_of
from penstock.protocol.compression import decompress
from penstock.protocol.reasons import Reason
from penstock.v1 import record_pb2 as pb

_new: Callable[[type[Record], tuple[object, ...]], Record] = tuple.__new__
"""Makes a Record of a tuple of its fields, in half the time of Record(...). Every use names all the fields."""


class FetchedBatch:
    """A batch as it was fetched; its records are parsed when they are asked for."""

    __slots__ = ("_batch", "_start", "append_time_ms", "base_offset", "last_offset", "leader_epoch", "partition",
                 "record_count", "size", "source", "topic")  # fmt: skip

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

    @property
    def base_timestamp_ms(self) -> int:
        """Timestamp of a record = this + its timestamp_delta_ms."""
        return self._batch.base_timestamp_ms

    @property
    def records(self) -> Sequence[pb.Record]:
        """Parse the records from the position on: offset = base_offset + offset_delta. Raises LogDamagedError."""
        return self._read()[1]

    def to_records(self) -> list[Record]:
        """Give the records as values. Raises LogDamagedError."""
        data, records = self._read()
        count = self.record_count
        if self._start > self.base_offset or len(records) != count:
            return self._each(records)
        columns = columns_pb2.RecordSetColumns.FromString(data).records
        values, keys = columns.value, columns.key
        if (
            len(values) != count
            or (keys and len(keys) != count)
            or columns.headers
            or list(columns.offset_delta) != list(range(1, count))
        ):
            return self._each(records)
        fields = zip(
            repeat(self.topic, count),
            repeat(self.partition),
            range(self.base_offset, self.base_offset + count),
            self._times(columns, records),
            keys or repeat(None),
            values,
            repeat(()),
            repeat(self.leader_epoch),
            strict=False,
        )
        return list(map(_new, repeat(Record), fields))

    def _times(self, columns: columns_pb2.RecordColumns, records: Sequence[pb.Record]) -> Iterable[int]:
        base, deltas = self._batch.base_timestamp_ms, columns.timestamp_delta_ms
        if not deltas:
            return repeat(base)
        if len(deltas) == self.record_count:
            return map(base.__add__, deltas)
        return [base + record.timestamp_delta_ms for record in records]

    def _each(self, records: Sequence[pb.Record]) -> list[Record]:
        base, time_ms, epoch = self.base_offset, self._batch.base_timestamp_ms, self.leader_epoch
        topic, partition, new = self.topic, self.partition, _new
        return [
            new(Record, (topic, partition, base + record.offset_delta, time_ms + record.timestamp_delta_ms,
                         record.key or _absent(record, "key"), record.value or _absent(record, "value"),
                         _headers(record), epoch))
            for record in records
        ]  # fmt: skip

    def _read(self) -> tuple[bytes, Sequence[pb.Record]]:
        """The serialized RecordSet, and its records from the position on."""
        batch = self._batch
        if batch.control:
            return b"", ()
        try:
            data = decompress(batch.records, batch.compression, batch.records_size)
            records = pb.RecordSet.FromString(data).records
        except (ValueError, KeyError, DecodeError) as error:
            raise self.damaged(f"records of the batch are not readable: {error}") from error
        if self._start > self.base_offset:
            return data, [record for record in records if self.base_offset + record.offset_delta >= self._start]
        return data, records

    def from_offset(self, offset: int) -> "FetchedBatch":
        """Give the same batch without the records below `offset`."""
        stored = pb.StoredBatch(
            base_offset=self.base_offset,
            last_offset=self.last_offset,
            leader_epoch=self.leader_epoch,
            append_time_ms=self.append_time_ms,
            batch=self._batch,
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
