"""The serialized ProduceRequest, put together by hand around the records, so that their bytes are copied once only.

Byte for byte what protobuf makes of `penstock.v1.ProduceRequest`: the messages that surround the records are protobuf's
own, and each holds what it surrounds in its last field.
"""

from typing import Any

import grpc

from penstock.client.accumulator import Sealed
from penstock.protocol.batch import ProducerStamp, serialized_head
from penstock.protocol.record_set import varint
from penstock.v1 import producer_service_pb2 as pb

PRODUCE = "/penstock.v1.ProducerService/Produce"

_BATCHES = b"\x1a"  # tag of ProduceRequest.batches
_BATCH = b"2"  # tag of PartitionBatch.batch


class ProduceRequest:
    """One request; `settings` is the serialized request without batches."""

    def __init__(self, settings: bytes) -> None:
        self.size = 0
        """Bytes of the batches."""
        self._parts = [settings]

    def add(self, place: pb.PartitionBatch, sealed: Sealed, stamp: ProducerStamp) -> None:
        """Add a batch with this stamp; `place` is all of it but the batch."""
        head = serialized_head(sealed.header.stamped(stamp), sealed.records)
        batch_size = len(head) + len(sealed.records)
        placed = place.SerializeToString() + _BATCH + varint(batch_size) + head
        self._parts += (_BATCHES, varint(len(placed) + len(sealed.records)), placed, sealed.records)
        self.size += batch_size

    def serialized(self) -> bytes:
        """Give the message."""
        return b"".join(self._parts)


def open_call(channel: grpc.aio.Channel) -> Any:
    """Begin a Produce call that takes serialized requests."""
    return channel.stream_stream(PRODUCE, None, pb.ProduceResponse.FromString)()
