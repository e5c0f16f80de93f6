"""Records encoded by hand are byte for byte what protobuf makes of them; what it refuses is refused."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.protocol.record_set import (
    MIN_UNIFORM_RECORDS,
    TABLE_SIZE,
    checked_content,
    checked_timestamp,
    encode_headers,
    encode_record_set,
    varint,
)
from penstock.v1 import record_pb2 as pb

Headers = list[tuple[str, bytes | None]]
Row = tuple[bytes | None, bytes | None, int, Headers]
MAX_INT64 = (1 << 63) - 1

SIZES = st.one_of(st.integers(0, 200), st.sampled_from([127, 128, TABLE_SIZE - 20, TABLE_SIZE, 16_383, 16_384, 70_000]))
CONTENT = st.one_of(st.none(), st.binary(max_size=20), SIZES.map(lambda size: b"x" * size))
STAMPS = st.one_of(st.integers(-3, 3), st.integers(-(1 << 61), 1 << 61), st.sampled_from([63, 64, 8191, 8192]))
HEADERS = st.lists(st.tuples(st.text(max_size=5), CONTENT), max_size=3)
PLAIN: st.SearchStrategy[Headers] = st.just([])


def by_protobuf(rows: Sequence[Row]) -> bytes:
    record_set = pb.RecordSet()
    for number, (key, value, stamp, headers) in enumerate(rows):
        record = record_set.records.add(
            offset_delta=number, timestamp_delta_ms=stamp - rows[0][2], key=key, value=value
        )
        for name, content in headers:
            record.headers.add(key=name, value=content)
    return record_set.SerializeToString()


def by_hand(rows: Sequence[Row]) -> bytes:
    runs: list[tuple[int, int]] = []
    for number, row in enumerate(rows):
        if not runs or runs[-1][1] != row[2]:
            runs.append((number, row[2]))
    keys = [row[0] for row in rows]
    return encode_record_set(
        [row[1] for row in rows],
        keys if any(key is not None for key in keys) else None,
        {number: encode_headers(row[3]) for number, row in enumerate(rows) if row[3]},
        runs,
    )


@given(st.lists(st.tuples(CONTENT, CONTENT, STAMPS, st.one_of(PLAIN, HEADERS)), min_size=1, max_size=12))
def test_records_of_any_form_are_what_protobuf_makes_of_them(rows: list[Row]) -> None:
    assert by_hand(rows) == by_protobuf(rows)


@given(
    st.lists(
        st.tuples(st.integers(1, 3 * MIN_UNIFORM_RECORDS), st.one_of(st.none(), st.integers(0, 300)), STAMPS),
        min_size=1,
        max_size=5,
    )
)
@example([(MIN_UNIFORM_RECORDS, None, 0)])
@example([(200, TABLE_SIZE, 0), (200, TABLE_SIZE, 1)])
@example([(TABLE_SIZE - 1, 5, 0), (2, 5, 0), (MIN_UNIFORM_RECORDS, 5, -1)])
@example([(TABLE_SIZE + 200, 5, 0)])
@example([(17_000, 1, 0), (10, 1, 5), (10, 0, 6)])
def test_runs_of_records_of_one_size_are_what_protobuf_makes_of_them(runs: list[tuple[int, int | None, int]]) -> None:
    rows: list[Row] = []
    for count, size, stamp in runs:
        values = [None if size is None else str(number).encode().ljust(size)[:size] for number in range(count)]
        rows += [(None, value, stamp, []) for value in values]
    assert by_hand(rows) == by_protobuf(rows)


def test_an_absent_value_among_others_of_one_size_stays_absent() -> None:
    rows: list[Row] = [(None, b"" if number != 5 else None, 0, []) for number in range(20)]
    assert by_hand(rows) == by_protobuf(rows)
    assert not pb.RecordSet.FromString(by_hand(rows)).records[5].HasField("value")


@given(st.integers(0, (1 << 64) - 1))
def test_varints_are_those_of_protobuf(number: int) -> None:
    assert pb.RecordBatch(record_count=number % (1 << 32)).SerializeToString() == (
        b"\x18" + varint(number % (1 << 32)) if number % (1 << 32) else b""
    )
    unsigned = pb.RecordBatch(producer_id=number - (1 << 64) if number > MAX_INT64 else number)
    assert unsigned.SerializeToString() == b"0" + varint(number)


class Bytes(bytes):
    """As applications may have them."""


class Number:
    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    "content", [None, b"", b"x", Bytes(b"x"), bytearray(b"x"), memoryview(b"x"), "x", 1, 1.0, [1], object()]
)
def test_content_is_taken_and_refused_as_protobuf_does(content: object) -> None:
    if content is None or isinstance(content, bytes):
        checked = checked_content(content)
        assert type(checked) in (bytes, type(None))
        assert pb.Record(value=checked).SerializeToString() == pb.Record(value=content).SerializeToString()
        return
    with pytest.raises(TypeError) as theirs:
        pb.Record(value=content)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError) as ours:
        checked_content(content)  # type: ignore[arg-type]  # that is the point
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "stamp", [0, -1, Number(), MAX_INT64, -MAX_INT64 - 1, MAX_INT64 + 1, -MAX_INT64 - 2, 1.0, 1.5, "3", b"3"]
)
def test_timestamps_are_taken_and_refused_as_protobuf_does(stamp: object) -> None:
    try:
        expected = pb.Record(timestamp_delta_ms=stamp)  # type: ignore[arg-type]  # that is the point
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)):
            checked_timestamp(stamp)  # type: ignore[arg-type]  # that is the point
    else:
        assert checked_timestamp(stamp, 0) == expected.timestamp_delta_ms  # type: ignore[arg-type]  # the same


def test_a_timestamp_too_far_from_its_batchs_first_is_refused() -> None:
    assert checked_timestamp(MAX_INT64, 0) == MAX_INT64
    with pytest.raises(ValueError, match="out of range"):
        checked_timestamp(MAX_INT64, -1)


class Text(str):
    """As applications may have them."""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, b"x") for name in ("", "a", "\u00e9", "\ud800", b"a", b"\xc3\xa9", b"\xff", None, 1, bytearray(b"a"))),
        *(
            ("h", content)
            for content in (None, b"", b"x" * 200, Bytes(b"x"), bytearray(b"x"), memoryview(b"x"), "x", 1)
        ),
        (Text("a"), b"x"),
        ("long" * 100, b"x" * 20_000),
    ],
)
def test_headers_are_taken_and_refused_as_protobuf_does(name: Any, content: Any) -> None:
    record = pb.Record()
    try:
        record.headers.add(key="first", value=None)
        record.headers.add(key=name, value=content)
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)):
            encode_headers([("first", None), (name, content)])
    else:
        assert encode_headers([("first", None), (name, content)]) == record.SerializeToString()
