"""The replication messages that carry batches, encoded by hand so that each payload is copied once, when the message
is joined. The rest goes through the generated classes.

Wire form of PartitionAppend as in internal/v1/replication.proto; tests/replication/test_wire.py holds both together.
"""

from collections.abc import Iterable

from penstock.internal.v1 import data_pb2
from penstock.internal.v1 import replication_pb2 as pb
from penstock.node.replication.events import Position, RefusalKind
from penstock.protocol.batch import CorruptBatchError, crc_of, header_of
from penstock.storage import EpochStart, LogBatch, ReplicaSeed
from penstock.storage.producers import ProducerBatch, ProducerState
from penstock.v1 import record_pb2

_APPENDS = bytes([2 << 3 | 2])  # ReplicateResponse.appends
_BATCHES = bytes([3 << 3 | 2])  # PartitionAppend.batches
_PAYLOAD = bytes([5 << 3 | 2])  # StoredBatch.batch
REFUSALS = {
    RefusalKind.NOT_LEADER: pb.REFUSAL_REASON_NOT_LEADER,
    RefusalKind.NOT_REPLICA: pb.REFUSAL_REASON_NOT_REPLICA,
    RefusalKind.UNKNOWN_PARTITION: pb.REFUSAL_REASON_UNKNOWN_PARTITION,
}


def varint(value: int) -> bytes:
    """A non-negative number as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def append_parts(slot: int, batches: Iterable[LogBatch], *, cold: bool) -> list[bytes]:
    """A PartitionAppend as a field of ReplicateResponse, in parts to be joined."""
    head = pb.PartitionAppend(slot=slot, cold=cold).SerializeToString()
    parts = [head]
    size = len(head)
    for batch in batches:
        prefix = _batch_prefix(batch)
        parts += (prefix, batch.payload)
        size += len(prefix) + len(batch.payload)
    return [_APPENDS, varint(size), *parts]


def _batch_prefix(batch: LogBatch) -> bytes:
    place = data_pb2.StoredBatch(
        base_offset=batch.base_offset,
        last_offset=batch.last_offset,
        leader_epoch=batch.leader_epoch,
        append_time_ms=batch.append_time_ms,
    ).SerializeToString()
    payload = varint(len(batch.payload))
    size = len(place) + 1 + len(payload) + len(batch.payload)
    return b"".join((_BATCHES, varint(size), place, _PAYLOAD, payload))


def batch_of(stored: data_pb2.StoredBatch) -> LogBatch:
    """A received batch, its CRC checked. Raises CorruptBatchError or DecodeError."""
    payload = stored.batch
    batch = record_pb2.RecordBatch.FromString(payload)
    header = header_of(batch)
    if crc_of(header, batch.records) != batch.crc32c:
        raise CorruptBatchError(f"CRC of the replicated batch at offset {stored.base_offset} does not match")
    return LogBatch(stored.base_offset, stored.last_offset, stored.leader_epoch, stored.append_time_ms, header, payload)


def position_of(message: pb.FetchPosition) -> Position:
    """Read a position."""
    return Position(message.leader_epoch, message.fetch_offset, message.last_epoch, message.log_start_offset)


def position_message(position: Position) -> pb.FetchPosition:
    """Write a position."""
    return pb.FetchPosition(
        leader_epoch=position.leader_epoch,
        fetch_offset=position.fetch_offset,
        last_epoch=position.last_epoch,
        log_start_offset=position.log_start_offset,
    )


def seed_message(slot: int, seed: ReplicaSeed) -> pb.PartitionSeed:
    """Write a seed."""
    message = pb.PartitionSeed(slot=slot, start_offset=seed.start_offset)
    for entry in seed.epochs:
        message.epochs.add(leader_epoch=entry.leader_epoch, start_offset=entry.start_offset)
    for producer_id, state in seed.producers:
        producer = message.producers.add(
            producer_id=producer_id, producer_epoch=state.producer_epoch, timestamp_ms=state.timestamp_ms
        )
        for batch in state.batches:
            producer.batches.add(
                base_sequence=batch.base_sequence,
                last_sequence=batch.last_sequence,
                base_offset=batch.base_offset,
                last_offset=batch.last_offset,
            )
    return message


def seed_of(message: pb.PartitionSeed) -> ReplicaSeed:
    """Read a seed."""
    epochs = tuple(EpochStart(entry.leader_epoch, entry.start_offset) for entry in message.epochs)
    producers = tuple((producer.producer_id, _producer_of(producer)) for producer in message.producers)
    return ReplicaSeed(message.start_offset, epochs, producers)


def _producer_of(message: pb.SeedProducer) -> ProducerState:
    batches = tuple(
        ProducerBatch(batch.base_sequence, batch.last_sequence, batch.base_offset, batch.last_offset)
        for batch in message.batches
    )
    return ProducerState(message.producer_epoch, batches, message.timestamp_ms)
