"""Rows say again what was put into them, and keys sort as the numbers in them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.batch import BatchHeader
from penstock.storage import DamagedStoreError, LogBatch, LogState, PartitionKey, layout
from penstock.storage.layout import BATCH_ROW_BYTES, LogRow
from penstock.storage.producers import ProducerBatch, ProducerState, advance

i64 = st.integers(-(2**63), 2**63 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
offset = st.integers(0, 2**63 - 1)
headers = st.builds(BatchHeader, st.integers(0, 255), u32, u32, i64, i64, i64, i32, i32, st.booleans(), st.booleans())
batches = st.builds(LogBatch, offset, offset, i32, i64, headers, st.binary(max_size=200), st.integers(0, 255))
undo = st.binary(max_size=140)
producers = st.builds(
    ProducerState, i32, st.lists(st.builds(ProducerBatch, i32, i32, i64, i64), max_size=5).map(tuple), i64
)
states = st.builds(LogState, i64, i64, i64, i32, i32, u64, i64, u64, i64, i64)
rows = st.builds(
    LogRow, st.builds(PartitionKey, st.binary(min_size=16, max_size=16), u32), u32, states, u64, i64, u64, i64, u32
)


@given(u32, batches, u64, undo)
def test_batches(local: int, batch: LogBatch, position: int, undo: bytes) -> None:
    key = layout.offset_key(local, batch.base_offset)
    head = layout.pack_batch(key, batch, position, undo)
    row = memoryview(head + batch.payload)
    assert len(head) == BATCH_ROW_BYTES + len(undo)
    assert layout.unpack_batch(key, row) == batch
    found = layout.unpack_head(key, row)
    assert (found.position, found.header, found.undo) == (position, batch.header, undo)
    assert found.row_bytes == BATCH_ROW_BYTES + len(batch.payload)
    assert (found.last_offset, found.leader_epoch, found.append_time_ms) == batch[1:4]


@given(u32, batches, undo, st.integers(0), st.integers(0, 7))
def test_a_changed_bit_of_a_batch_shows(local: int, batch: LogBatch, undo: bytes, place: int, bit: int) -> None:
    key = layout.offset_key(local, batch.base_offset)
    row = bytearray(layout.pack_batch(key, batch, 0, undo) + batch.payload)
    row[place % len(row)] ^= 1 << bit
    with pytest.raises(DamagedStoreError, match="format --join"):
        layout.unpack_batch(key, memoryview(row))
    row[place % len(row)] ^= 1 << bit
    with pytest.raises(DamagedStoreError):
        layout.unpack_batch(layout.offset_key(local ^ 1, batch.base_offset), memoryview(row))
    with pytest.raises(DamagedStoreError):
        layout.unpack_batch(key, memoryview(row)[:-1])


@given(rows)
def test_logs(row: LogRow) -> None:
    assert layout.unpack_log(layout.pack_log(row)) == row


@given(producers)
def test_producers(state: ProducerState) -> None:
    assert layout.unpack_producer(layout.pack_producer(state)) == state


@given(st.none() | producers, headers, st.integers(0, 2**40), i64)
def test_undo(replaced: ProducerState | None, header: BatchHeader, base_offset: int, timestamp_ms: int) -> None:
    state = advance(replaced, header, base_offset, timestamp_ms)
    assert layout.unpack_undo(layout.pack_undo(replaced, state), state) == replaced


@given(u64, i32)
def test_epochs(start_offset: int, former: int) -> None:
    assert layout.unpack_epoch(layout.pack_epoch(start_offset, former)) == (start_offset, former)


@given(st.binary(max_size=20), st.binary(max_size=50))
def test_seals(key: bytes, body: bytes) -> None:
    row = layout.seal(key, body)
    assert layout.unseal(key, row) == layout.unseal(key, memoryview(row)) == body
    with pytest.raises(DamagedStoreError):
        layout.unseal(key + b"x", row)
    with pytest.raises(DamagedStoreError):
        layout.unseal(key, row + b"x")


def test_a_row_that_seems_to_reach_out_of_the_file_is_not_read() -> None:
    with pytest.raises(DamagedStoreError):
        layout.unseal(b"key", layout.seal(b"key", bytes(layout.MAX_SMALL_ROW)))


PAIRS: list[tuple[Any, Any, Any]] = [
    (layout.offset_key, st.tuples(u32, offset), None),
    (layout.time_key, st.tuples(u32, i64, offset), layout.read_time_key),
    (layout.producer_key, st.tuples(u32, i64), layout.read_producer_key),
]


@pytest.mark.parametrize(("pack", "values", "read"), PAIRS)
@given(data=st.data())
def test_keys_sort_as_numbers_and_read_back(pack: Any, values: Any, read: Any, data: st.DataObject) -> None:
    one, other = data.draw(values), data.draw(values)
    assert (pack(*one) < pack(*other)) == (one < other)
    assert read is None or read(pack(*one)) == one
