"""A request put together by hand is byte for byte protobuf's, with the stamp that the batch is sent with."""

import pytest

from penstock.client.accumulator import Sealed
from penstock.client.produce_request import PRODUCE, ProduceRequest
from penstock.protocol.batch import (
    NOT_STAMPED,
    BatchHeader,
    NewRecord,
    ProducerStamp,
    build,
    header_of,
    parse,
    serialized_head,
)
from penstock.protocol.compression import COMPRESSIONS
from penstock.v1 import common_pb2
from penstock.v1 import producer_service_pb2 as pb

STAMPS = [NOT_STAMPED, ProducerStamp(7, 0, 0), ProducerStamp(1 << 62, 32_767, 2**31 - 1)]


def sealed(size: int, compression: int = 1, stamp: ProducerStamp = NOT_STAMPED) -> Sealed:
    batch = build([NewRecord(b"k", b"x" * size, 5), NewRecord(None, None, -3)], compression, stamp)
    return Sealed(header_of(batch), batch.records)


def settings() -> pb.ProduceRequest:
    out = pb.ProduceRequest(acks=common_pb2.ACKS_ALL)
    out.timeout.FromMilliseconds(15_000)
    return out


def place(number: int, leader_epoch: int | None = 3) -> pb.PartitionBatch:
    return pb.PartitionBatch(batch_number=number, topic_id=b"t" * 16, partition=number % 3, leader_epoch=leader_epoch)


@pytest.mark.parametrize("compression", COMPRESSIONS.values())
@pytest.mark.parametrize("stamp", STAMPS)
def test_a_batch_is_what_protobuf_makes_of_it(compression: int, stamp: ProducerStamp) -> None:
    for size in (0, 1, 100, 20_000):
        made = sealed(size, compression)
        header: BatchHeader = made.header.stamped(stamp)
        expected = build([NewRecord(b"k", b"x" * size, 5), NewRecord(None, None, -3)], compression, stamp)
        payload = serialized_head(header, made.records) + made.records
        assert payload == expected.SerializeToString()
        assert parse(payload)[0] == header


def test_a_request_is_what_protobuf_makes_of_it() -> None:
    expected = settings()
    request = ProduceRequest(settings().SerializeToString())
    assert request.serialized() == expected.SerializeToString()
    for number, size in enumerate((0, 100, 20_000)):
        for stamp in STAMPS:
            leader_epoch = None if stamp is NOT_STAMPED else number
            request.add(place(number, leader_epoch), sealed(size), stamp)
            batch = expected.batches.add()
            batch.CopyFrom(place(number, leader_epoch))
            batch.batch.CopyFrom(build([NewRecord(b"k", b"x" * size, 5), NewRecord(None, None, -3)], 1, stamp))
    assert request.serialized() == expected.SerializeToString()
    assert request.size == sum(batch.batch.ByteSize() for batch in expected.batches)


def test_a_batch_sent_again_has_the_stamp_that_it_is_sent_with() -> None:
    made = sealed(100)
    sent = []
    for stamp in (STAMPS[1], STAMPS[2], STAMPS[1]):
        request = ProduceRequest(b"")
        request.add(place(1), made, stamp)
        sent.append(request.serialized())
        batch = pb.ProduceRequest.FromString(sent[-1]).batches[0].batch
        assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == stamp
        parse(batch.SerializeToString())  # its CRC is that of this stamp
    assert sent[0] == sent[2]


def test_the_method_is_the_services() -> None:
    service = pb.DESCRIPTOR.services_by_name["ProducerService"]
    assert f"/{service.full_name}/{service.methods_by_name['Produce'].name}" == PRODUCE
