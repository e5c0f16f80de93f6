"""The record batch: canonical header, CRC, validation, building and reading. Normative text: docs/protocol.md.

Owns the meaning of the fields of `RecordBatch`. A server calls `parse` and `check`; it never looks at single records.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError

from penstock.protocol.compression import compress, decompress
from penstock.protocol.record_set import varint
from penstock.v1 import record_pb2 as pb

NO_PRODUCER = -1
NO_TIMESTAMP = -1
MAX_SEQUENCE = 2**31 - 1
MAX_EPOCH = 2**15 - 1

# compression, record_count, records_size, base and max timestamp, producer id, epoch, base sequence, flags
_CANONICAL = struct.Struct(">BIIqqqiiB")
_RECORDS = b"\x7a"  # tag of RecordBatch.records
_TRANSACTIONAL = 1
_CONTROL = 2
_COMPRESSIONS = frozenset(pb.Compression.values()) - {pb.COMPRESSION_UNSPECIFIED}


class InvalidBatchError(ValueError):
    """The bytes are no well-formed record batch; the message says which field is wrong."""


class CorruptBatchError(InvalidBatchError):
    """The batch's CRC does not match its content."""


class BatchHeader(NamedTuple):
    """What a server knows of a batch without reading its records. Timestamps in ms; -1 where absent."""

    compression: int
    record_count: int
    records_size: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    transactional: bool
    control: bool

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record, or -1 without a producer."""
        if self.producer_id == NO_PRODUCER:
            return -1
        return advance_sequence(self.base_sequence, self.record_count - 1)

    def stamped(self, stamp: "ProducerStamp") -> "BatchHeader":
        """Give the same header with another producer stamp."""
        return BatchHeader(*self[:5], *stamp, *self[8:])


class NewRecord(NamedTuple):
    """A record to be put into a batch. `value` None is a tombstone."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Sequence[tuple[str, bytes | None]] = ()


class ProducerStamp(NamedTuple):
    """Identity and position of an idempotent producer's batch."""

    producer_id: int
    producer_epoch: int
    base_sequence: int


NOT_STAMPED = ProducerStamp(NO_PRODUCER, -1, -1)


def request_stamp(request_id: str) -> ProducerStamp:
    """Stamp for the one batch of a `request_id`: 109 bits of its SHA-256, the producer id in -2 and below.

    So the memory of producers also recognizes a repeated request (rule 25, docs/adr/0003).
    """
    digest = int.from_bytes(hashlib.sha256(request_id.encode()).digest(), "big")
    producer_id = -2 - digest % (2**63 - 1)
    return ProducerStamp(producer_id, (digest >> 64) & MAX_EPOCH, (digest >> 96) & MAX_SEQUENCE)


def advance_sequence(sequence: int, count: int) -> int:
    """Return the sequence `count` after `sequence`; 2^31-1 is followed by 0."""
    return (sequence + count) & MAX_SEQUENCE


def header_of(batch: pb.RecordBatch) -> BatchHeader:
    """Read the header fields of a parsed batch, without checking them."""
    has_producer = batch.HasField("producer_id")
    return BatchHeader(
        batch.compression,
        batch.record_count,
        batch.records_size,
        batch.base_timestamp_ms,
        batch.max_timestamp_ms,
        batch.producer_id if has_producer else NO_PRODUCER,
        batch.producer_epoch if has_producer else -1,
        batch.base_sequence if has_producer else -1,
        batch.transactional,
        batch.control,
    )


def crc_of(header: BatchHeader, records: bytes) -> int:
    """CRC-32C over the canonical header (big-endian, fixed width) and the compressed records."""
    *fields, transactional, control = header
    flags = (_TRANSACTIONAL if transactional else 0) | (_CONTROL if control else 0)
    crc: int = google_crc32c.extend(google_crc32c.value(_CANONICAL.pack(*fields, flags)), records)
    return crc


def parse(payload: bytes) -> tuple[BatchHeader, pb.RecordBatch]:
    """Parse a serialized batch and check its form and CRC.

    Raises InvalidBatchError for a malformed batch (unset or unknown enum, no records, half a producer stamp),
    CorruptBatchError where the CRC differs. Producer ids below -1 are servers' own (`request_stamp`); a leader refuses
    them from clients.
    """
    try:
        batch = pb.RecordBatch.FromString(payload)
    except DecodeError as error:
        raise InvalidBatchError(f"not a RecordBatch: {error}") from error
    header = header_of(batch)
    _check_form(batch, header)
    crc = crc_of(header, batch.records)
    if crc != batch.crc32c:
        raise CorruptBatchError(f"CRC-32C of the batch is {crc:#010x}, not {batch.crc32c:#010x}")
    return header, batch


def _check_form(batch: pb.RecordBatch, header: BatchHeader) -> None:
    if header.compression not in _COMPRESSIONS:
        known = "unspecified" if header.compression == pb.COMPRESSION_UNSPECIFIED else f"{header.compression}, unknown"
        raise InvalidBatchError(f"compression is {known}")
    if header.record_count == 0:
        raise InvalidBatchError("record_count is 0")
    if header.record_count > MAX_SEQUENCE:
        raise InvalidBatchError(f"record_count {header.record_count} is above {MAX_SEQUENCE}")
    has = batch.HasField
    stamped = has("producer_id")
    if has("producer_epoch") is not stamped or has("base_sequence") is not stamped:
        raise InvalidBatchError("producer_id, producer_epoch and base_sequence must be set together or not at all")
    if stamped and (
        header.producer_id == NO_PRODUCER or header.base_sequence < 0 or not 0 <= header.producer_epoch <= MAX_EPOCH
    ):
        raise InvalidBatchError("producer_id must not be -1, base_sequence not negative, producer_epoch in 0..32767")


def build(
    records: Sequence[NewRecord], compression: int = pb.COMPRESSION_NONE, stamp: ProducerStamp = NOT_STAMPED
) -> pb.RecordBatch:
    """Build a batch of at least one record, with its CRC. Offsets are 0..n-1 from the base that the broker gives."""
    record_set = pb.RecordSet()
    add = record_set.records.add
    base = records[0].timestamp_ms
    latest = base
    for delta, record in enumerate(records):
        latest = max(latest, record.timestamp_ms)
        new = add(offset_delta=delta, timestamp_delta_ms=record.timestamp_ms - base, key=record.key, value=record.value)
        for key, value in record.headers:
            new.headers.add(key=key, value=value)
    return seal(
        record_set.SerializeToString(),
        BatchHeader(compression, len(records), 0, base, latest, *stamp, transactional=False, control=False),
    )


def seal(record_set: bytes, header: BatchHeader) -> pb.RecordBatch:
    """Make the batch of a serialized RecordSet: compress it as `header` says, fill in its size, add the CRC."""
    header = header._replace(records_size=len(record_set))
    records = compress(record_set, header.compression)
    batch = _fields_of(header, records)
    batch.records = records
    return batch


def serialized_head(header: BatchHeader, records: bytes) -> bytes:
    """All of the serialized batch that comes before the content of `records`, which are not copied.

    `records` is the message's last field: head and records together are the batch as protobuf serializes it.
    """
    return _fields_of(header, records).SerializeToString() + _RECORDS + varint(len(records))


def _fields_of(header: BatchHeader, records: bytes) -> pb.RecordBatch:
    """The batch without its records, with the CRC that covers them."""
    batch = pb.RecordBatch(
        crc32c=crc_of(header, records),
        compression=header.compression,  # type: ignore[arg-type]  # a plain int of the enum
        record_count=header.record_count,
        records_size=header.records_size,
        base_timestamp_ms=header.base_timestamp_ms,
        max_timestamp_ms=header.max_timestamp_ms,
        transactional=header.transactional,
        control=header.control,
    )
    if header.producer_id != NO_PRODUCER:
        batch.producer_id = header.producer_id
        batch.producer_epoch = header.producer_epoch
        batch.base_sequence = header.base_sequence
    return batch


def read(batch: pb.RecordBatch) -> Iterable[pb.Record]:
    """Decompress and parse the records of a batch whose CRC was checked.

    Raises InvalidBatchError when they are not what the header states.
    """
    try:
        data = decompress(batch.records, batch.compression, batch.records_size)
        record_set = pb.RecordSet.FromString(data)
    except (ValueError, KeyError, DecodeError) as error:
        raise InvalidBatchError(f"records of the batch are not readable: {error}") from error
    return record_set.records
