"""The records of a fetched batch: every field as it was written, whatever the others have."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.cursor import Cursor
from penstock.client.errors import LogDamagedError
from penstock.client.fetched import FetchedBatch
from penstock.client.records import Record, TopicPartition
from penstock.internal.v1 import columns_pb2
from penstock.protocol.batch import BatchHeader, NewRecord, build, seal
from penstock.v1 import consumer_service_pb2
from penstock.v1 import record_pb2 as pb

HERE = TopicPartition("orders", 3)
BASE = 7
contents = st.none() | st.binary(max_size=3)
headers = st.just(()) | st.lists(st.tuples(st.text(max_size=2), contents), max_size=2)
new_records = st.builds(NewRecord, contents, contents, st.integers(-5, 5), headers)
plain_records = st.builds(NewRecord, st.none(), contents, st.integers(-5, 5))
keyed_records = st.builds(NewRecord, contents, contents, st.integers(-5, 5))


def fetched(batch: pb.RecordBatch, start: int = BASE) -> FetchedBatch:
    last = BASE + batch.record_count - 1
    return FetchedBatch(
        HERE, pb.StoredBatch(base_offset=BASE, last_offset=last, leader_epoch=4, batch=batch), start, None
    )


@given(
    st.one_of([st.lists(kind, min_size=1, max_size=6) for kind in (new_records, plain_records, keyed_records)]),
    st.sampled_from((pb.COMPRESSION_NONE, pb.COMPRESSION_ZSTD)),
    st.integers(0, 5),
)
def test_records_are_as_they_were_written(
    written: Sequence[NewRecord], compression: pb.Compression.ValueType, skipped: int
) -> None:
    expected = [
        Record(*HERE, BASE + n, new.timestamp_ms, new.key, new.value, list(new.headers) or (), 4)
        for n, new in enumerate(written)
    ]
    batch = fetched(build(written, compression), BASE + skipped)
    assert batch.to_records() == expected[skipped:]
    assert [BASE + record.offset_delta for record in batch.records] == [record.offset for record in expected[skipped:]]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(-2, 2), contents, contents), min_size=1, max_size=6))
def test_records_of_a_batch_with_holes(rows: list[tuple[int, int, bytes | None, bytes | None]]) -> None:
    """As compaction leaves it: offsets rise by more than one; none of the fields need be there."""
    record_set, offset, expected = pb.RecordSet(), -1, []
    for step, delta_ms, key, value in rows:
        offset += step
        record_set.records.add(offset_delta=offset, timestamp_delta_ms=delta_ms, key=key, value=value)
        expected.append(Record(*HERE, BASE + offset, 50 + delta_ms, key, value, (), 4))
    header = BatchHeader(pb.COMPRESSION_NONE, len(rows), 0, 50, 52, -1, -1, -1, transactional=False, control=False)
    stored = pb.StoredBatch(base_offset=BASE, last_offset=BASE + offset, leader_epoch=4)
    stored.batch.CopyFrom(seal(record_set.SerializeToString(), header))
    assert FetchedBatch(HERE, stored, BASE, None).to_records() == expected


def test_columns_have_the_fields_of_a_record() -> None:
    def numbers(message: type[pb.Record] | type[columns_pb2.RecordColumns]) -> dict[str, int]:
        return {field.name: field.number for field in message.DESCRIPTOR.fields}

    assert numbers(columns_pb2.RecordColumns) == numbers(pb.Record)
    assert columns_pb2.RecordSetColumns.DESCRIPTOR.fields_by_name["records"].number == 1


def test_what_cannot_be_read_is_told_after_what_comes_before_and_is_not_skipped() -> None:
    header = BatchHeader(pb.COMPRESSION_NONE, 1, 0, 0, 0, -1, -1, -1, transactional=False, control=False)
    good, bad = build([NewRecord(None, b"v", 0)]), seal(b"\xff", header)
    cursor = Cursor(b"", HERE, 0)
    batches = [pb.StoredBatch(base_offset=n, last_offset=n, batch=batch) for n, batch in enumerate((good, bad, good))]
    cursor.accept(consumer_service_pb2.ConsumedPartition(batches=batches), None, check_crc=True)
    assert [record.offset for record in cursor.take(3)[0]] == [0]
    for _ in range(2):
        with pytest.raises(LogDamagedError, match="not readable"):
            cursor.take(3)
        assert cursor.position == 1
