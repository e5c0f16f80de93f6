"""The serialized RecordSet, encoded by hand: what a producing client does for each of its records.

Byte for byte what protobuf makes of `penstock.v1.RecordSet` (tests/protocol compares them), in a part of the time: a
batch is kept as columns, and most of a record's bytes are the same as its neighbour's or come from a table. Takes
`bytes` only, as protobuf does; reads no records.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import index
from typing import Any

from penstock.v1 import record_pb2 as pb

TABLE_SIZE = 4096
"""Numbers below this are looked up, larger ones are computed."""
MIN_UNIFORM_RECORDS = 8
"""So many records of one size and timestamp are encoded all at once."""
OPENING_TABLES = 24
"""Tables kept of the openings of a batch's records, each for one size of records, of TABLE_SIZE entries at most."""

_MIN_INT64, _MAX_INT64 = -(1 << 63), (1 << 63) - 1
_RECORD = b"\n"  # RecordSet.records
_OFFSET, _TIMESTAMP, _KEY, _VALUE, _HEADER = b"\x08", b"\x10", b"\x1a", b'"', b"*"  # the fields of Record

Stamps = Sequence[tuple[int, int]]
"""Runs of equal timestamps: index of the first record of the run, timestamp in ms. The first run begins at 0."""


def varint(number: int) -> bytes:
    """Encode a number from 0 to 2^64-1 as protobuf does."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS = [varint(number) for number in range(TABLE_SIZE)]
_RECORDS = [_RECORD + encoded for encoded in _VARINTS]
_OFFSETS = [b"", *(_OFFSET + encoded for encoded in _VARINTS[1:])]
_KEYS = [_KEY + encoded for encoded in _VARINTS]
_VALUES = [_VALUE + encoded for encoded in _VARINTS]


def unrolled(stamps: Stamps, count: int) -> list[int]:
    """Give the timestamp of each of `count` records, in order."""
    out: list[int] = []
    for (start, stamp_ms), (end, _) in pairwise((*stamps, (count, 0))):
        out += [stamp_ms] * (end - start)
    return out


def checked_content(content: bytes | None) -> bytes | None:
    """Give a key or value as it can be encoded. Raises TypeError for anything but bytes and None."""
    if content is None or type(content) is bytes:
        return content
    if not isinstance(content, bytes):
        raise TypeError(f"expected bytes, {type(content).__name__} found")
    return b"".join((content,))  # of a subclass: the plain bytes


def checked_timestamp(timestamp_ms: int, base_timestamp_ms: int | None = None) -> int:
    """Give a timestamp as it can be encoded, beside the first of its batch. Raises TypeError, ValueError."""
    number = index(timestamp_ms)
    delta = 0 if base_timestamp_ms is None else number - base_timestamp_ms
    if not (_MIN_INT64 <= number <= _MAX_INT64 and _MIN_INT64 <= delta <= _MAX_INT64):
        raise ValueError(f"Value out of range: {number}")
    return number


def encode_headers(headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """Encode the headers of a record. Raises TypeError, ValueError for what is no header."""
    out = b""
    for name, content in headers:
        if type(name) is not str:  # bytes, or nothing: protobuf takes some
            name = pb.Header(key=name).key  # noqa: PLW2901
        encoded = name.encode()
        header = b"\n" + varint(len(encoded)) + encoded if encoded else b""
        checked = checked_content(content)
        if checked is not None:
            header += b"\x12" + varint(len(checked)) + checked
        out += _HEADER + varint(len(header)) + header
    return out


def encode_record_set(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    headers: Mapping[int, bytes],
    stamps: Stamps,
) -> bytes:
    """Serialize records in order, their offset deltas counted from 0; timestamps relative to the first one's.

    All has been checked by the functions above. `keys` None: no record has one. `headers`: by the record's index, as
    `encode_headers` gives them.
    """
    base_ms = stamps[0][1]
    parts: list[bytes] = []
    for (start, stamp_ms), (end, _) in pairwise((*stamps, (len(values), 0))):
        run = values[start:end]
        time = _timestamp_field(stamp_ms - base_ms)
        size = _common_size(run) if keys is None and not headers else None
        if size is not None:
            parts += _encode_alike(start, run, time + _looked_up(_VALUES, _VALUE, [size])[0], size)
            continue
        own_headers = [headers.get(number, b"") for number in range(start, end)] if headers else None
        parts += _encode_each(start, run, None if keys is None else keys[start:end], own_headers, time)
    return b"".join(parts)


def _common_size(run: Sequence[bytes | None]) -> int | None:
    """Size of all values of the run, where it is the same and they are many."""
    first = run[0]
    if len(run) < MIN_UNIFORM_RECORDS or first is None:
        return None
    try:
        alike = len(set(map(len, run))) == 1  # type: ignore[arg-type]  # None has no length: see below
    except TypeError:
        return None
    return len(first) if alike else None


def _encode_alike(start: int, run: Sequence[bytes | None], middle: bytes, size: int) -> Sequence[bytes]:
    """Encode records that differ in offset and content alone."""
    end = start + len(run)
    following = len(middle) + size
    woven: list[Any] = [middle] * (3 * len(run))
    if end <= TABLE_SIZE:
        woven[0::3] = _openings(following, 1 << (end - 1).bit_length())[start:end]  # rounded up: few tables
    else:
        woven[0::3] = [_opening(offset, following) for offset in _offset_fields(start, end)]
    woven[2::3] = run
    return woven


@lru_cache(maxsize=OPENING_TABLES)
def _openings(following: int, count: int) -> tuple[bytes, ...]:
    """Openings of the first `count` records of a batch."""
    return tuple(_opening(offset, following) for offset in _OFFSETS[:count])


def _opening(offset: bytes, following: int) -> bytes:
    """Tag and length of a record with its offset, when `following` bytes come after these."""
    return _RECORD + varint(len(offset) + following) + offset


def _encode_each(
    start: int,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    headers: Sequence[bytes] | None,
    time: bytes,
) -> Sequence[bytes]:
    """Encode records of any form, column by column."""
    count = len(values)
    offsets = _offset_fields(start, start + count)
    value_heads, contents, content_sizes = _columns_of(values, _VALUES, _VALUE)
    fixed = len(time)
    sizes = [
        fixed + len(offset) + len(head) + size
        for offset, head, size in zip(offsets, value_heads, content_sizes, strict=True)
    ]
    columns: list[Sequence[bytes]] = [offsets]
    if time:
        columns.append([time] * count)
    if keys is not None:
        key_heads, key_contents, key_sizes = _columns_of(keys, _KEYS, _KEY)
        columns += (key_heads, key_contents)
        sizes = [size + len(head) + own for size, head, own in zip(sizes, key_heads, key_sizes, strict=True)]
    columns += (value_heads, contents)
    if headers is not None:
        columns.append(headers)
        sizes = [size + len(own) for size, own in zip(sizes, headers, strict=True)]
    columns.insert(0, _looked_up(_RECORDS, _RECORD, sizes))
    woven = [b""] * (len(columns) * count)
    for place, column in enumerate(columns):
        woven[place :: len(columns)] = column
    return woven


def _columns_of(
    contents: Sequence[bytes | None], table: Sequence[bytes], tag: bytes
) -> tuple[Sequence[bytes], Sequence[bytes], Sequence[int]]:
    """Give what stands before each content (nothing, where it is absent), the contents, and their sizes."""
    try:
        sizes = list(map(len, contents))  # type: ignore[arg-type]  # None has no length: below
    except TypeError:
        present = [content or b"" for content in contents]
        sizes = list(map(len, present))
        heads = _looked_up(table, tag, sizes)
        heads = [b"" if content is None else head for content, head in zip(contents, heads, strict=True)]
        return heads, present, sizes
    return _looked_up(table, tag, sizes), contents, sizes  # type: ignore[return-value]  # none of them is None


def _looked_up(table: Sequence[bytes], tag: bytes, numbers: Sequence[int]) -> list[bytes]:
    """Give tag and varint of each number; `table` holds those below TABLE_SIZE."""
    if max(numbers) < TABLE_SIZE:
        return list(map(table.__getitem__, numbers))
    return [table[number] if number < TABLE_SIZE else tag + varint(number) for number in numbers]


def _offset_fields(start: int, end: int) -> list[bytes]:
    if end <= TABLE_SIZE:
        return _OFFSETS[start:end]
    return [_OFFSETS[number] if number < TABLE_SIZE else _OFFSET + varint(number) for number in range(start, end)]


def _timestamp_field(delta_ms: int) -> bytes:
    """Zigzag; absent where it is 0."""
    if delta_ms == 0:
        return b""
    return _TIMESTAMP + varint(delta_ms << 1 if delta_ms > 0 else (-delta_ms << 1) - 1)
