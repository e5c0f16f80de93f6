"""ConsumeResponse encoded by hand, so that each batch is copied once, when the response is joined.

Protobuf's own way copies a batch into the message, again where the message goes into another, and again to serialize
it. What is small goes through the generated classes. Wire form as in v1/consumer_service.proto;
tests/node/test_consume_wire.py holds both together.
"""

from collections.abc import Iterable

from penstock.internal.v1 import data_pb2 as twin
from penstock.node.stored_batch import prefix_of
from penstock.protocol.record_set import varint
from penstock.storage import LogBatch

_PARTITIONS = bytes([1 << 3 | 2])  # ConsumeResponse.partitions
_BATCHES = bytes([6 << 3 | 2])  # ConsumedPartition.batches


def partition_parts(head: twin.ConsumedPartition, batches: Iterable[LogBatch] = ()) -> list[bytes]:
    """A field `partitions` of the response, in parts to be joined: `head`, which has no batches, with these."""
    body = [head.SerializeToString()]
    for batch in batches:
        body += (_BATCHES, prefix_of(batch), batch.payload)
    return [_PARTITIONS, varint(sum(map(len, body))), *body]
