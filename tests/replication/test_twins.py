"""The messages of internal/v1/data.proto are those of penstock.v1, but with the batch as bytes."""

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from penstock.internal.v1 import data_pb2
from penstock.v1 import consumer_service_pb2, producer_service_pb2, record_pb2

TWINS: list[tuple[type[Message], type[Message]]] = [
    (data_pb2.ProduceRequest, producer_service_pb2.ProduceRequest),
    (data_pb2.PartitionBatch, producer_service_pb2.PartitionBatch),
    (data_pb2.StoredBatch, record_pb2.StoredBatch),
    (data_pb2.ConsumeResponse, consumer_service_pb2.ConsumeResponse),
    (data_pb2.ConsumedPartition, consumer_service_pb2.ConsumedPartition),
]
PAIRS = {v1.DESCRIPTOR.full_name: twin.DESCRIPTOR.full_name for twin, v1 in TWINS}


def shape(message: type[Message]) -> dict[int, tuple[object, ...]]:
    """Field number to all that matters on the wire and to a reader, with v1's types named as their twins."""
    fields = message.DESCRIPTOR.fields
    return {f.number: (f.name, f.is_repeated, f.has_presence, kind(f)) for f in fields}


def kind(field: Any) -> object:
    if field.message_type is None:
        return field.enum_type.full_name if field.enum_type else field.type
    name = field.message_type.full_name
    return PAIRS.get(name, name)


@pytest.mark.parametrize(("twin", "v1"), TWINS, ids=lambda message: message.DESCRIPTOR.full_name)
def test_twin_has_the_fields_of_its_original(twin: type[Message], v1: type[Message]) -> None:
    ours, theirs = shape(twin), shape(v1)
    for number, (name, repeated, _, what) in list(theirs.items()):
        if what == "penstock.v1.RecordBatch":
            assert ours.pop(number) == (name, repeated, False, FieldDescriptor.TYPE_BYTES)
            del theirs[number]
    assert ours == theirs


def test_bytes_and_message_have_one_wire_form() -> None:
    batch = record_pb2.RecordBatch(crc32c=7, compression=record_pb2.COMPRESSION_NONE, record_count=1, records=b"x")
    original = record_pb2.StoredBatch(base_offset=5, last_offset=5, leader_epoch=2, append_time_ms=9, batch=batch)
    twin = data_pb2.StoredBatch.FromString(original.SerializeToString())
    assert twin.batch == batch.SerializeToString()
    assert record_pb2.StoredBatch.FromString(twin.SerializeToString()) == original
