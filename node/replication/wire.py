"""The replication messages that carry batches, encoded by hand so that each payload is copied once, when the message
is joined. The rest goes through the generated classes.

Wire form of PartitionAppend as in internal/v1/replication.proto; tests/replication/test_wire.py holds both together.
"""

from collections.abc import Iterable

from penstock.internal.v1 import data_pb2
from penstock.internal.v1 import replication_pb2 as pb
from penstock.node.replication.events import Position, RefusalKind
from penstock.node.stored_batch import prefix_of
from penstock.protocol.batch import CorruptBatchError, crc_of, header_of
from penstock.protocol.record_set import varint
from penstock.storage import EpochStart, LogBatch, ReplicaSeed
from penstock.storage.producers import ProducerBatch, ProducerState
from penstock.v1 import common_pb2, record_pb2

_APPENDS = bytes([2 << 3 | 2])  # ReplicateResponse.appends
_BATCHES = bytes([3 << 3 | 2])  # PartitionAppend.batches
REFUSALS = {
    RefusalKind.NOT_LEADER: pb.REFUSAL_REASON_NOT_LEADER,
    RefusalKind.NOT_REPLICA: pb.REFUSAL_REASON_NOT_REPLICA,
    RefusalKind.UNKNOWN_PARTITION: pb.REFUSAL_REASON_UNKNOWN_PARTITION,
}


def append_parts(slot: int, batches: Iterable[LogBatch], *, cold: bool) -> list[bytes]:
    """A PartitionAppend as a field of ReplicateResponse, in parts to be joined."""
    head = pb.PartitionAppend(slot=slot, cold=cold).SerializeToString()
    parts = [head]
    size = len(head)
    for batch in batches:
        prefix = prefix_of(batch)
        parts += (_BATCHES, prefix, batch.payload)
        size += len(_BATCHES) + len(prefix) + len(batch.payload)
    return [_APPENDS, varint(size), *parts]


def batch_of(stored: data_pb2.StoredBatch) -> LogBatch:
    """A received batch, its CRC checked. Raises CorruptBatchError or DecodeError."""
    payload = stored.batch
    batch = record_pb2.RecordBatch.FromString(payload)
    header = header_of(batch)
    if crc_of(header, batch.records) != batch.crc32c:
        raise CorruptBatchError(f"CRC of the replicated batch at offset {stored.base_offset} does not match")
    kind = stored.timestamp_type or common_pb2.TIMESTAMP_TYPE_CREATE
    place = (stored.base_offset, stored.last_offset, stored.leader_epoch, stored.append_time_ms)
    return LogBatch(*place, header, payload, kind)


def position_of(message: pb.FetchPosition) -> Position:
    """Read a position."""
    return Position(
        message.leader_epoch,
        message.fetch_offset,
        message.last_epoch,
        message.log_start_offset,
        message.tombstones_below,
    )


def position_message(position: Position) -> pb.FetchPosition:
    """Write a position."""
    return pb.FetchPosition(
        leader_epoch=position.leader_epoch,
        fetch_offset=position.fetch_offset,
        last_epoch=position.last_epoch,
        log_start_offset=position.log_start_offset,
        tombstones_below=position.tombstones_below,
    )


def seed_message(slot: int, seed: ReplicaSeed) -> pb.PartitionSeed:
    """Write a seed."""
    message = pb.PartitionSeed(slot=slot, start_offset=seed.start_offset, tombstones_below=seed.tombstones_below)
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
    return ReplicaSeed(message.start_offset, epochs, producers, message.tombstones_below)


def _producer_of(message: pb.SeedProducer) -> ProducerState:
    batches = tuple(
        ProducerBatch(batch.base_sequence, batch.last_sequence, batch.base_offset, batch.last_offset)
        for batch in message.batches
    )
    return ProducerState(message.producer_epoch, batches, message.timestamp_ms)
