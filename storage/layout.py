"""How keys and rows look on disk. Pure. Keys are big-endian, so that LMDB's byte order is the numbers' order.

Key spaces (named databases). A log's row has a stable local id; its data is under `p`, the data id (both u32, from one
counter), which changes when the log is reset, so that a reset costs nothing and the old data goes in the background:
    store       name -> value            identity, format version, start ids, next local id
    partitions  local id -> LogRow
    batches     p, base_offset -> BatchRow + payload
    epochs      p, leader_epoch -> start offset
    times       p, running maximum timestamp, base_offset -> nothing    sparse: at most one in INDEX_BYTES
    producers   p, producer_id -> ProducerState
    undo        p, base_offset -> producer_id and the ProducerState that the batch replaced, above the high watermark
    garbage     p -> offset              batches of p that begin below it are to be deleted; GARBAGE_ALL: all of p
Rows of `partitions` and `batches` carry a CRC-32C over key and row (payloads have their producer's), since LMDB has no
page checksums.
"""

import struct
from typing import NamedTuple

import google_crc32c

from penstock.protocol.batch import BatchHeader
from penstock.storage.errors import DamagedStoreError
from penstock.storage.producers import ProducerBatch, ProducerState
from penstock.storage.types import LogBatch, LogState, PartitionKey

FORMAT_VERSION = 1
DATABASES = ("store", "partitions", "batches", "epochs", "times", "producers", "undo", "garbage")
GARBAGE_ALL = 2**63 - 1
INDEX_BYTES = 64 * 1024
REPAIR = (
    "stop the node, move its data directory away, run `penstockd format --join` and start it: it is filled again from "
    "its peers"
)

LOCAL = struct.Struct(">I")
OFFSET_KEY = struct.Struct(">IQ")
EPOCH_KEY = struct.Struct(">Ii")
TIME_KEY = struct.Struct(">IQQ")
U64 = struct.Struct(">Q")

_SIGN = 1 << 63
_CRC = struct.Struct(">I")
# CRC, last_offset, leader_epoch, append_time; then the header: compression, record_count, records_size, base and max
# timestamp, producer id, epoch, base sequence, transactional, control; payload length
_BATCH = struct.Struct(">IqiqBIIqqqii??I")
BATCH_ROW_BYTES = _BATCH.size
# CRC, topic id, index, data id, log start, log end, high watermark, last and acted epoch, size, running maximum,
# unindexed bytes
_LOG = struct.Struct(">I16sIIqqqiiQqQ")
_PRODUCER = struct.Struct(">iqB")
_PRODUCER_BATCH = struct.Struct(">iiqq")
_UNDO = struct.Struct(">q?")


class LogRow(NamedTuple):
    """Row of `partitions`."""

    key: PartitionKey
    data: int  # data id
    state: LogState
    max_timestamp_ms: int  # the largest so far; NO_MAXIMUM for none
    unindexed_bytes: int  # since the last row in `times`


NO_MAXIMUM = -(2**63)


def offset_key(local: int, offset: int) -> bytes:
    """Key in `batches` and `undo`."""
    return OFFSET_KEY.pack(local, offset)


def time_key(local: int, timestamp_ms: int, base_offset: int) -> bytes:
    """Key in `times`; signed timestamps in their order."""
    return TIME_KEY.pack(local, timestamp_ms + _SIGN, base_offset)


def read_time_key(key: bytes) -> tuple[int, int, int]:
    """Return local id, timestamp and base offset."""
    local, timestamp, base_offset = TIME_KEY.unpack(key)
    return local, timestamp - _SIGN, base_offset


def producer_key(local: int, producer_id: int) -> bytes:
    """Key in `producers`; signed ids in their order."""
    return OFFSET_KEY.pack(local, producer_id + _SIGN)


def read_producer_key(key: bytes) -> tuple[int, int]:
    """Return local id and producer id."""
    local, producer_id = OFFSET_KEY.unpack(key)
    return local, producer_id - _SIGN


def _crc(key: bytes, row: "bytes | memoryview") -> int:
    return int(google_crc32c.extend(google_crc32c.value(key), bytes(row)))


def pack_batch(key: bytes, batch: LogBatch) -> bytes:
    """Row head of a batch; the payload follows it."""
    row = _BATCH.pack(0, batch.last_offset, batch.leader_epoch, batch.append_time_ms, *batch.header, len(batch.payload))
    return _CRC.pack(_crc(key, row[4:])) + row[4:]


def unpack_batch(key: bytes, row: memoryview) -> LogBatch:
    """Read a row of `batches`. Raises DamagedStoreError."""
    local, base_offset = OFFSET_KEY.unpack(key)
    if len(row) < BATCH_ROW_BYTES:
        raise damaged(f"the batch at offset {base_offset} of local partition {local} is cut short")
    fields = _BATCH.unpack_from(row)
    if fields[0] != _crc(key, row[4:BATCH_ROW_BYTES]) or fields[-1] != len(row) - BATCH_ROW_BYTES:
        raise damaged(f"the checksum of the batch at offset {base_offset} of local partition {local} is wrong")
    header = BatchHeader._make(fields[4:-1])
    return LogBatch(base_offset, fields[1], fields[2], fields[3], header, bytes(row[BATCH_ROW_BYTES:]))


def pack_log(local: int, row: LogRow) -> bytes:
    """Row of `partitions`."""
    body = _LOG.pack(0, *row.key, row.data, *row.state, row.max_timestamp_ms, row.unindexed_bytes)
    return _CRC.pack(_crc(LOCAL.pack(local), body[4:])) + body[4:]


def unpack_log(local: int, row: bytes) -> LogRow:
    """Read a row of `partitions`. Raises DamagedStoreError."""
    if len(row) != _LOG.size or _CRC.unpack_from(row)[0] != _crc(LOCAL.pack(local), row[4:]):
        raise damaged(f"the checksum of the row of local partition {local} is wrong")
    fields = _LOG.unpack(row)
    return LogRow(PartitionKey(*fields[1:3]), fields[3], LogState(*fields[4:10]), fields[10], fields[11])


def pack_producer(state: ProducerState) -> bytes:
    """Row of `producers`."""
    batches = b"".join(_PRODUCER_BATCH.pack(*batch) for batch in state.batches)
    return _PRODUCER.pack(state.producer_epoch, state.timestamp_ms, len(state.batches)) + batches


def unpack_producer(row: bytes) -> ProducerState:
    """Read a row of `producers`. Raises DamagedStoreError."""
    try:
        epoch, timestamp_ms, count = _PRODUCER.unpack_from(row)
        start = _PRODUCER.size
        batches = tuple(
            ProducerBatch._make(_PRODUCER_BATCH.unpack_from(row, start + index * _PRODUCER_BATCH.size))
            for index in range(count)
        )
    except struct.error as error:
        raise damaged("a producer's row is cut short") from error
    return ProducerState(epoch, batches, timestamp_ms)


def pack_undo(producer_id: int, replaced: ProducerState | None) -> bytes:
    """Row of `undo`."""
    return _UNDO.pack(producer_id, replaced is not None) + (b"" if replaced is None else pack_producer(replaced))


def unpack_undo(row: bytes) -> tuple[int, ProducerState | None]:
    """Return the producer id and the state to put back; None: it was not known."""
    producer_id, known = _UNDO.unpack_from(row)
    return producer_id, unpack_producer(row[_UNDO.size :]) if known else None


def damaged(what: str) -> DamagedStoreError:
    """Name the damage and the way out."""
    return DamagedStoreError(f"the store is damaged: {what}; {REPAIR}")
