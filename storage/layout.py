"""How keys and rows look on disk. Pure. Keys are big-endian, so that LMDB's byte order is the numbers' order.

Key spaces (named databases). A log's row has a stable local id; its data is under `p`, the data id (both u32, from one
counter), which changes when the log is reset, so that a reset costs nothing and the old data goes in the background:
    store       name -> value            identity, format version, start ids, next local id
    partitions  local id -> LogRow
    batches     p, base_offset -> BatchHead + what undoes it + payload
    epochs      p, leader_epoch -> start offset, the epoch before it
    times       p, running maximum timestamp, base_offset -> nothing    sparse: one in INDEX_BYTES
    producers   p, producer_id -> ProducerState
    known       p, producer_id -> nothing            the keys of `producers` once more
    garbage     p -> offset              batches of p that begin below it are to be deleted; GARBAGE_ALL: all of p
LMDB has no page checksums, so every row begins with a CRC-32C over its key and content (`seal`). A batch's covers its
head and what undoes it; the head has another one of the payload: many lookups need the head alone. That a row is there,
in spite of a page that hides it, is known of batches by tiling, of epochs by a chain, of partitions by count, of
producers by `known`, in other pages; a hidden row of `times` only makes a search longer.
"""

import struct
from itertools import chain
from typing import NamedTuple

import google_crc32c

from penstock.protocol.batch import NO_TIMESTAMP, BatchHeader
from penstock.storage.errors import DamagedStoreError
from penstock.storage.producers import REMEMBERED_BATCHES, ProducerBatch, ProducerState
from penstock.storage.types import APPEND_TIME, LogBatch, LogState, PartitionKey

FORMAT_VERSION = 3
"""2: what undoes a batch is in its row (docs/adr/0014). 3: compaction (docs/adr/0015)."""
DATABASES = ("store", "partitions", "batches", "epochs", "times", "producers", "known", "garbage")
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
CRC_BYTES = _CRC.size
MAX_SMALL_ROW = 256 * 1024
"""No row but a batch's is longer; what seems to be is damage, and may lie outside the file."""
# after the CRC: position, CRC of the payload, last_offset, leader_epoch, append_time, timestamp type, since when its
# tombstones are the last of their keys; then the header: compression, record_count, records_size, base and max
# timestamp, producer id, epoch, base sequence, transactional, control; then the lengths of the payload and of what
# undoes the batch
_BATCH = struct.Struct(">QIqiqBqBIIqqqii??IB")
BATCH_ROW_BYTES = CRC_BYTES + _BATCH.size
# topic id, index, data id; log start, log end, high watermark, last and acted epoch, size, first offset, record count,
# cleaned offset, tombstones below; end position, running maximum, unindexed bytes, rewritten end, cuts
_LOG = struct.Struct(">16sIIqqqiiQqQqqQqQqI")
_EPOCH = struct.Struct(">Qi")
_PRODUCER = struct.Struct(">iqB")
_PRODUCER_BATCH = struct.Struct(">iiqq")
_PRODUCERS = tuple(struct.Struct(">iqB" + "iiqq" * count) for count in range(REMEMBERED_BATCHES + 1))
_WHOLE, _TIME, _DROPPED = range(3)  # the first byte of what undoes a batch: what it holds
_WHOLE_KIND = bytes([_WHOLE])
_UNDO_TIME = struct.Struct(">Bq")
_UNDO_DROPPED = struct.Struct(">Bqiiqq")


class LogRow(NamedTuple):
    """Row of `partitions`."""

    key: PartitionKey
    data: int  # data id
    state: LogState
    end_position: int  # bytes of all batches that were appended to this data id, less those cut off its end
    max_timestamp_ms: int  # the largest so far; NO_MAXIMUM for none
    unindexed_bytes: int  # since the last row in `times`
    rewritten_end: int = 0  # from here on positions are exact and each offset has a record; below, compaction has been
    cuts: int = 0  # how often records below the high watermark were cut off; a compaction goes by it


class BatchHead(NamedTuple):
    """A row of `batches` without its payload."""

    position: int  # bytes of the batches before it, of the same data id; see LogRow.rewritten_end
    payload_crc: int
    last_offset: int
    leader_epoch: int
    append_time_ms: int
    timestamp_type: int
    tombstones_since_ms: int  # when compaction first found its tombstones to be the last of their keys; or NO_TIME
    header: BatchHeader
    payload_bytes: int
    undo: bytes

    @property
    def row_bytes(self) -> int:
        """What the batch counts for in sizes and positions: on all replicas the same, so without what undoes it."""
        return BATCH_ROW_BYTES + self.payload_bytes

    @property
    def max_time_ms(self) -> int:
        """The latest time of a record, by the clock that counts; where none has a time, when the batch was appended."""
        latest = self.header.max_timestamp_ms
        return self.append_time_ms if self.timestamp_type == APPEND_TIME or latest == NO_TIMESTAMP else latest


NO_TIME = -1
NO_MAXIMUM = -(2**63)


def offset_key(local: int, offset: int) -> bytes:
    """Key in `batches`."""
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


def seal(key: bytes, body: bytes) -> bytes:
    """Row of a key: its content, after the CRC of both."""
    return _CRC.pack(google_crc32c.value(key + body)) + body


def unseal(key: bytes, row: "bytes | memoryview") -> bytes:
    """Content of a row. Raises DamagedStoreError."""
    if CRC_BYTES <= len(row) <= MAX_SMALL_ROW:
        body = bytes(row[CRC_BYTES:])
        if _CRC.unpack_from(row)[0] == google_crc32c.value(key + body):
            return body
    raise damaged(f"the checksum of the row of key {key.hex()} is wrong")


def pack_batch(key: bytes, batch: LogBatch, position: int, undo: bytes, tombstones_since_ms: int = NO_TIME) -> bytes:
    """Head of a batch's row, with what undoes it; the payload follows."""
    _, last_offset, leader_epoch, append_time_ms, header, payload, timestamp_type = batch
    times = (append_time_ms, timestamp_type, tombstones_since_ms)
    crc = google_crc32c.value(payload)
    sizes = (len(payload), len(undo))
    return seal(key, _BATCH.pack(position, crc, last_offset, leader_epoch, *times, *header, *sizes) + undo)


def unpack_head(key: bytes, row: memoryview) -> BatchHead:
    """Read the head of a row of `batches`; its payload is not touched. Raises DamagedStoreError."""
    if len(row) >= BATCH_ROW_BYTES:
        fields = _BATCH.unpack_from(row, CRC_BYTES)
        payload_bytes, undo_bytes = fields[-2:]
        end = BATCH_ROW_BYTES + undo_bytes
        crc = google_crc32c.value(key + bytes(row[CRC_BYTES:end]))
        if _CRC.unpack_from(row)[0] == crc and end + payload_bytes == len(row):
            undo = bytes(row[BATCH_ROW_BYTES:end])
            return BatchHead._make((*fields[:7], BatchHeader._make(fields[7:-2]), payload_bytes, undo))
    raise _damaged_batch(key)


def unpack_batch(key: bytes, row: memoryview) -> LogBatch:
    """Read a row of `batches`. Raises DamagedStoreError."""
    return unpack_whole(key, row)[0]


def unpack_whole(key: bytes, row: memoryview) -> tuple[LogBatch, BatchHead]:
    """Read a row of `batches`, its head too. Raises DamagedStoreError."""
    head = unpack_head(key, row)
    payload = bytes(row[len(row) - head.payload_bytes :])
    if google_crc32c.value(payload) != head.payload_crc:
        raise _damaged_batch(key)
    base_offset = OFFSET_KEY.unpack(key)[1]
    times = (head.append_time_ms, head.header, payload, head.timestamp_type)
    return LogBatch(base_offset, head.last_offset, head.leader_epoch, *times), head


def _damaged_batch(key: bytes) -> DamagedStoreError:
    if len(key) != OFFSET_KEY.size:
        return damaged(f"key {key[:64].hex()} is none of a batch")
    local, base_offset = OFFSET_KEY.unpack(key)
    return damaged(f"the checksum of the batch at offset {base_offset} of local partition {local} is wrong")


def pack_log(row: LogRow) -> bytes:
    """Content of a row of `partitions`."""
    return _LOG.pack(*row.key, row.data, *row.state, *row[3:])


def unpack_log(body: bytes) -> LogRow:
    """Read the content of a row of `partitions`."""
    fields = _LOG.unpack(body)
    return LogRow(PartitionKey(*fields[:2]), fields[2], LogState(*fields[3:13]), *fields[13:])


def pack_epoch(start_offset: int, former_epoch: int) -> bytes:
    """Content of a row of `epochs`."""
    return _EPOCH.pack(start_offset, former_epoch)


def unpack_epoch(body: bytes) -> tuple[int, int]:
    """Start offset of the epoch, and the epoch before it."""
    start_offset, former_epoch = _EPOCH.unpack(body)
    return start_offset, former_epoch


def pack_producer(state: ProducerState) -> bytes:
    """Content of a row of `producers`."""
    epoch, batches, timestamp_ms = state
    return _PRODUCERS[len(batches)].pack(epoch, timestamp_ms, len(batches), *chain.from_iterable(batches))


def unpack_producer(body: bytes) -> ProducerState:
    """Read the content of a row of `producers`."""
    epoch, timestamp_ms, count = _PRODUCER.unpack_from(body)
    start = _PRODUCER.size
    batches = tuple(
        ProducerBatch._make(_PRODUCER_BATCH.unpack_from(body, start + index * _PRODUCER_BATCH.size))
        for index in range(count)
    )
    return ProducerState(epoch, batches, timestamp_ms)


def pack_undo(replaced: ProducerState | None, state: ProducerState) -> bytes:
    """What leads from a producer's state back to the one that its newest batch replaced; b"" there was none.

    Short where that differs as usual: one batch less, and perhaps an older one that had to go.
    """
    if replaced is None:
        return b""
    if replaced.producer_epoch == state.producer_epoch and len(state.batches) > 1:
        if len(replaced.batches) < len(state.batches):
            return _UNDO_TIME.pack(_TIME, replaced.timestamp_ms)
        return _UNDO_DROPPED.pack(_DROPPED, replaced.timestamp_ms, *replaced.batches[0])
    return _WHOLE_KIND + pack_producer(replaced)


def unpack_undo(undo: bytes, state: ProducerState) -> ProducerState | None:
    """The state before `state`, which `pack_undo` was given."""
    if not undo:
        return None
    if undo[0] == _WHOLE:
        return unpack_producer(undo[1:])
    batches = state.batches[:-1]
    if undo[0] == _TIME:
        return ProducerState(state.producer_epoch, batches, _UNDO_TIME.unpack(undo)[1])
    _, timestamp_ms, *dropped = _UNDO_DROPPED.unpack(undo)
    return ProducerState(state.producer_epoch, (ProducerBatch._make(dropped), *batches), timestamp_ms)


def damaged(what: str) -> DamagedStoreError:
    """Name the damage and the way out."""
    return DamagedStoreError(f"the store is damaged: {what}; {REPAIR}")
