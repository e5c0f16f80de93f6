"""The accumulator: bounded memory, order within a partition, nothing left behind at a flush."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.accumulator import (
    BATCH_OVERHEAD,
    RECORD_MEMORY,
    Accumulator,
    AccumulatorLimits,
    Lane,
    PendingBatch,
)
from penstock.client.errors import BufferFullError, InvalidRequestError, RecordTooLargeError
from penstock.protocol.batch import parse, read, serialized_head
from penstock.v1 import record_pb2 as pb


class Time:
    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


def accumulator(
    time: Time,
    batch_bytes: int = 400,
    buffer_bytes: int = 4000,
    compression: "pb.Compression.ValueType" = pb.COMPRESSION_NONE,
) -> Accumulator:
    return Accumulator(AccumulatorLimits(batch_bytes, buffer_bytes, 5, 1000, compression), time)


def lane(made: Accumulator, partition: int = 0, max_batch_bytes: int = 2000) -> Lane:
    out = Lane(b"t" * 16, "orders", partition)
    made.fit(out, max_batch_bytes)
    return out


def serialized(batch: PendingBatch) -> bytes:
    return serialized_head(batch.sealed.header, batch.sealed.records) + batch.sealed.records


def values(of: Lane) -> list[bytes | None]:
    out: list[bytes | None] = []
    for batch in of.closed:
        header, sealed = parse(serialized(batch))
        records = list(read(sealed))
        assert [record.offset_delta for record in records] == list(range(header.record_count))
        out += [record.value if record.HasField("value") else None for record in records]
    return out


Step = tuple[int, int] | str
STEPS = st.lists(st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 600)), st.sampled_from(["wait", "settle"])))


@given(STEPS, st.sampled_from([1, 2, 4, 5]))
def test_memory_is_bounded_order_is_kept_and_a_flush_leaves_nothing(
    steps: list[Step], compression: "pb.Compression.ValueType"
) -> None:
    time = Time()
    made = accumulator(time, compression=compression)
    lanes = [lane(made, partition) for partition in range(3)]
    sent: list[list[bytes]] = [[], [], []]
    got: list[list[bytes | None]] = [[], [], []]

    def settle() -> None:
        for each in lanes:
            got[each.partition] += values(each)
            while each.closed:
                made.release(each.closed.popleft())

    for number, step in enumerate(steps):
        if step == "wait":
            time.ms += 3
            for due in made.take_due(time.ms):
                made.close(due)
        elif step == "settle":
            settle()
        elif isinstance(step, tuple):
            value = str(number).encode().ljust(step[1], b".")
            try:
                made.append(lanes[step[0]], None, value, (), number, None)
                sent[step[0]].append(value)
            except BufferFullError:
                pass
        assert made.used_bytes <= 4000
        live = sum(batch.size + batch.record_count * RECORD_MEMORY for batch in made.live)
        assert made.used_bytes == live
    made.flush(lanes)
    for each in lanes:
        made.close(each)
    settle()
    assert got == sent
    assert made.used_bytes == 0
    assert not made.live
    assert not made.lingering


def test_a_batch_is_closed_when_it_is_full_and_not_above_its_limit() -> None:
    made = accumulator(Time())
    target = lane(made)
    assert made.append(target, None, b"x" * 100, (), 0, None)
    begun = [made.append(target, b"k", b"x" * 100, (), 0, None) for _ in range(6)]
    assert begun == [False, False, True, False, False, True]
    assert all(len(serialized(batch)) <= 400 for batch in target.closed)


def test_open_batches_become_due_in_the_order_in_which_they_were_begun() -> None:
    time = Time()
    made = accumulator(time)
    first, second = lane(made, 0), lane(made, 1)
    made.append(first, None, b"", (), 0, None)
    time.ms = 2
    made.append(second, None, b"", (), 0, None)
    assert made.next_due_ms() == 5
    assert made.take_due(5) == [first]
    assert made.next_due_ms() == 7
    assert made.take_due(7) == [second]
    assert made.next_due_ms() is None


def test_a_record_above_the_topics_limit_is_refused_and_changes_nothing() -> None:
    made = accumulator(Time(), buffer_bytes=100_000)
    target = lane(made, max_batch_bytes=1000)
    with pytest.raises(RecordTooLargeError, match="above the limit of 872 bytes"):
        made.append(target, None, b"x" * (1000 - BATCH_OVERHEAD), (), 0, None)
    assert target.open is None
    assert made.used_bytes == 0
    made.append(target, None, b"x" * 840, (), 0, None)
    made.close(target)
    assert len(serialized(target.closed[0])) <= 1000


@pytest.mark.parametrize(("value", "headers"), [("text", ()), (b"", [("h", "text")]), (b"", [(b"\xff", b"")])])
def test_what_is_no_record_is_refused_and_changes_nothing(value: object, headers: object) -> None:
    made = accumulator(Time())
    target = lane(made)
    made.append(target, None, b"before", (), 0, None)
    with pytest.raises(InvalidRequestError):
        made.append(target, None, value, headers, 0, None)  # type: ignore[arg-type]  # that is the point
    made.append(target, None, b"after", (), 0, None)
    made.close(target)
    assert values(target) == [b"before", b"after"]
    fresh = lane(made, 1)
    with pytest.raises(InvalidRequestError):
        made.append(fresh, None, value, headers, 0, None)  # type: ignore[arg-type]  # that is the point
    assert fresh.open is None


def test_timestamps_may_go_back() -> None:
    made = accumulator(Time())
    target = lane(made)
    for stamp in (100, 90, 110):
        made.append(target, None, b"", (), stamp, None)
    made.close(target)
    header, sealed = parse(serialized(target.closed[0]))
    assert (header.base_timestamp_ms, sealed.max_timestamp_ms) == (100, 110)
    assert [record.timestamp_delta_ms for record in read(sealed)] == [0, -10, 10]


def test_keys_headers_and_tombstones_keep_their_places() -> None:
    made = accumulator(Time(), batch_bytes=2000)
    target = lane(made, max_batch_bytes=4000)
    rows: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (None, b"a", []),
        (b"k", None, []),
        (None, None, [("h", b"1"), ("h", None)]),
        (b"", b"", []),
        (None, b"b", []),
    ]
    for number, (key, value, headers) in enumerate(rows):
        made.append(target, key, value, headers, number // 2, None)
    made.close(target)
    header, sealed = parse(serialized(target.closed[0]))
    assert header.record_count == len(rows)
    for row, record in zip(rows, read(sealed), strict=True):
        assert (record.key if record.HasField("key") else None) == row[0]
        assert (record.value if record.HasField("value") else None) == row[1]
        assert [(h.key, h.value if h.HasField("value") else None) for h in record.headers] == row[2]


def test_a_timestamp_that_is_no_number_is_refused_and_changes_nothing() -> None:
    made = accumulator(Time())
    target = lane(made)
    for begun in (False, True):
        for stamp in (5.0, "5", 1 << 63, -(1 << 63) - 1):
            with pytest.raises(InvalidRequestError):
                made.append(target, None, b"x", (), stamp, None)  # type: ignore[arg-type]  # that is the point
        assert (target.open is not None) is begun
        if not begun:
            made.append(target, None, b"x", (), 5, None)
    made.close(target)
    assert values(target) == [b"x"]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20))
def test_each_record_keeps_its_timestamp(stamps: list[int]) -> None:
    made = accumulator(Time(), batch_bytes=2000)
    target = lane(made, max_batch_bytes=4000)
    for stamp in stamps:
        made.append(target, None, b"", (), stamp, None)
    made.close(target)
    batch = target.closed[0]
    assert batch.stamps == stamps
    header, sealed = parse(serialized(batch))
    assert header.max_timestamp_ms == max(stamps)
    assert [header.base_timestamp_ms + record.timestamp_delta_ms for record in read(sealed)] == stamps


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(0, 59), st.sampled_from([1_000, 4_000, 100_000]))
def test_extending_is_appending_without_the_calls(sizes: list[int], start: int, buffer_bytes: int) -> None:
    """What is taken at once leaves the same batches and the same counts as one by one, and stops where that would."""
    many, single = accumulator(Time(), buffer_bytes=buffer_bytes), accumulator(Time(), buffer_bytes=buffer_bytes)
    ours, theirs = lane(many), lane(single)
    given_values = [bytes([size % 251]) * size for size in sizes]
    for made, of in ((many, ours), (single, theirs)):
        made.append(of, b"key" if start % 2 else None, b"first", (), 7, None)
    count = many.extend(ours, given_values, start)
    for value in given_values[start : start + count]:
        assert not single.append(theirs, None, value, (), 7, None)  # none of them begins a batch
    assert ours.open is not None
    assert theirs.open is not None
    assert many.used_bytes == single.used_bytes
    assert ours.open.size == theirs.open.size
    assert ours.open.record_count == theirs.open.record_count == 1 + count
    for value in given_values[start + count : start + count + 1]:  # the next one is for `append` to look at
        with contextlib.suppress(BufferFullError, RecordTooLargeError):
            assert single.append(theirs, None, value, (), 7, None)
        assert many.used_bytes <= buffer_bytes
    many.close(ours)
    single.close(theirs)
    assert values(ours) == [b"first", *given_values[start : start + count]]
    assert serialized(ours.closed[0]) == serialized(theirs.closed[0])
    many.release(ours.closed[0])
    assert many.used_bytes == 0


def test_extending_needs_an_open_batch_and_stops_at_what_is_no_bytes() -> None:
    made = accumulator(Time())
    of = lane(made)
    assert made.extend(of, [b"x"], 0) == 0
    made.append(of, None, b"x", (), 7, None)
    assert made.extend(of, [b"a", b"b", None, b"c"], 0) == 2  # type: ignore[list-item]  # a tombstone is for append
