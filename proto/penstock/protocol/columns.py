"""A serialized RecordSet read as columns, in a part of the time that its records take one by one. Pure."""

from itertools import groupby
from typing import NamedTuple

from google.protobuf.message import DecodeError

from penstock.internal.v1 import columns_pb2
from penstock.protocol.record_set import encode_record_set


class Columns(NamedTuple):
    """The records of a batch that all have a value, and all a key or none; their offsets are 0, 1, 2 and so on."""

    keys: list[bytes] | None
    """None: no record has one."""
    values: list[bytes]
    stamps: list[tuple[int, int]]
    """Runs of equal timestamps: index of the first record, timestamp in ms."""


def columns_of(data: bytes, count: int, base_timestamp_ms: int) -> Columns | None:
    """Keys, values and timestamps of a RecordSet of `count` records; None where that is not all there is to it.

    Read as columns it does not say which record has which value, and which of them have no timestamp. What is most
    likely is tried, and believed if it gives the same bytes.
    """
    try:
        columns = columns_pb2.RecordSetColumns.FromString(data).records
    except DecodeError:
        return None
    keys, values, deltas = list(columns.key) or None, list(columns.value), list(columns.timestamp_delta_ms)
    untimed = count - len(deltas)  # a delta of 0 is not written; those are the first ones, as time goes on
    if not values or len(values) != count or (keys and len(keys) != count) or untimed < 0:
        return None
    runs = [(0, base_timestamp_ms)] if untimed else []
    begin = untimed
    for delta, run in groupby(deltas):
        runs.append((begin, base_timestamp_ms + delta))
        begin += len(list(run))
    return Columns(keys, values, runs) if encode_record_set(values, keys, {}, runs) == data else None
