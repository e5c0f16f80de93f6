"""A StoredBatch as a field of a message, encoded by hand, so that the payload is copied once: when all is joined.

Wire form as in internal/v1/data.proto; tests/node/test_consume_wire.py and tests/replication/test_wire.py hold both
together.
"""

from functools import lru_cache

from penstock.internal.v1 import data_pb2 as twin
from penstock.protocol.record_set import varint
from penstock.storage import LogBatch
from penstock.v1.common_pb2 import TIMESTAMP_TYPE_CREATE

PREFIXES = 4_096
"""Kept: the same few batches go to each follower, and to whoever reads the end of the log."""
_PAYLOAD = bytes([5 << 3 | 2])  # StoredBatch.batch


def prefix_of(batch: LogBatch) -> bytes:
    """All of the field that comes between its tag and the batch's payload."""
    base_offset, last_offset, leader_epoch, append_time_ms, _, payload, timestamp_type = batch
    return _prefix(base_offset, last_offset, leader_epoch, append_time_ms, len(payload), timestamp_type)


@lru_cache(maxsize=PREFIXES)
def _prefix(
    base_offset: int, last_offset: int, leader_epoch: int, append_time_ms: int, size: int, timestamp_type: int
) -> bytes:
    place = twin.StoredBatch(
        base_offset=base_offset,
        last_offset=last_offset,
        leader_epoch=leader_epoch,
        append_time_ms=append_time_ms,
        timestamp_type=timestamp_type if timestamp_type != TIMESTAMP_TYPE_CREATE else None,  # type: ignore[arg-type]
    ).SerializeToString()
    payload = _PAYLOAD + varint(size)
    return varint(len(place) + len(payload) + size) + place + payload
