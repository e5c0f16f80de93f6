"""Consume responses encoded by hand are those that protobuf would make."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.internal.v1 import data_pb2 as twin
from penstock.node.api.consume_wire import partition_parts
from penstock.protocol.batch import BatchHeader
from penstock.storage import LogBatch
from penstock.v1 import consumer_service_pb2 as pb
from penstock.v1.common_pb2 import TIMESTAMP_TYPE_APPEND, TIMESTAMP_TYPE_CREATE

HEADER = BatchHeader(1, 1, 0, 0, 0, -1, -1, -1, transactional=False, control=False)
offsets = st.integers(0, 2**63 - 1)
batches = st.builds(
    LogBatch,
    offsets,
    offsets,
    st.integers(0, 2**31 - 1),
    offsets,
    st.just(HEADER),
    st.binary(min_size=1, max_size=300),
    st.sampled_from([TIMESTAMP_TYPE_CREATE, TIMESTAMP_TYPE_APPEND]),
)
heads = st.builds(
    twin.ConsumedPartition,
    assignment_id=st.integers(0, 2**64 - 1),
    leader_epoch=st.integers(-1, 2**31 - 1),
    high_watermark=offsets,
    last_stable_offset=offsets,
    log_start_offset=offsets,
)


@given(st.lists(st.tuples(heads, st.lists(batches, max_size=3)), max_size=3))
def test_the_bytes_are_those_of_protobuf(partitions: list[tuple[twin.ConsumedPartition, list[LogBatch]]]) -> None:
    parts: list[bytes] = []
    expected = twin.ConsumeResponse()
    for head, stored in partitions:
        parts += partition_parts(head, stored)
        partition = expected.partitions.add()
        partition.CopyFrom(head)
        for batch in stored:
            partition.batches.add(
                base_offset=batch.base_offset,
                last_offset=batch.last_offset,
                leader_epoch=batch.leader_epoch,
                append_time_ms=batch.append_time_ms,
                batch=batch.payload,
                timestamp_type=TIMESTAMP_TYPE_APPEND if batch.timestamp_type == TIMESTAMP_TYPE_APPEND else None,
            )
    assert twin.ConsumeResponse.FromString(b"".join(parts)) == expected
    assert len(b"".join(parts)) == expected.ByteSize()


def test_a_reader_sees_the_batch_and_the_error() -> None:
    error = partition_parts(twin.ConsumedPartition(assignment_id=2))
    payload = pb.ConsumedPartition(assignment_id=1).batches.add().batch
    payload.record_count = 3
    batch = LogBatch(5, 7, 0, 0, HEADER, payload.SerializeToString())
    response = pb.ConsumeResponse.FromString(b"".join(partition_parts(twin.ConsumedPartition(), [batch]) + error))
    assert response.partitions[0].batches[0].batch.record_count == 3
    assert response.partitions[1].assignment_id == 2
