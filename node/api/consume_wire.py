"""ConsumeResponse encoded by hand, so that each batch is copied once, when the response is joined.

Protobuf's own way copies a batch into the message, again where the message goes into another, and again to serialize
it. What is small goes through the generated classes. Wire form as in v1/consumer_service.proto;
tests/node/test_consume_wire.py holds both together.
"""

from collections.abc import Iterable

from penstock.internal.v1 import data_pb2 as twin
from penstock.protocol.record_set import varint
from penstock.storage import LogBatch

_PARTITIONS = bytes([1 << 3 | 2])  # ConsumeResponse.partitions
_BATCHES = bytes([6 << 3 | 2])  # ConsumedPartition.batches
_PAYLOAD = bytes([5 << 3 | 2])  # StoredBatch.batch


def partition_parts(head: twin.ConsumedPartition, batches: Iterable[LogBatch] = ()) -> list[bytes]:
    """A field `partitions` of the response, in parts to be joined: `head`, which has no batches, with these."""
    body = [head.SerializeToString()]
    for batch in batches:
        body += (_prefix(batch), batch.payload)
    return [_PARTITIONS, varint(sum(map(len, body))), *body]


def _prefix(batch: LogBatch) -> bytes:
    """All of a field `batches` that comes before the payload."""
    place = twin.StoredBatch(
        base_offset=batch.base_offset,
        last_offset=batch.last_offset,
        leader_epoch=batch.leader_epoch,
        append_time_ms=batch.append_time_ms,
    ).SerializeToString()
    payload = varint(len(batch.payload))
    size = len(place) + len(_PAYLOAD) + len(payload) + len(batch.payload)
    return b"".join((_BATCHES, varint(size), place, _PAYLOAD, payload))
