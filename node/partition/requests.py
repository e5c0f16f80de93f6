"""What the API asks of a partition, and what it is answered."""

from collections.abc import Callable
from typing import NamedTuple

from penstock.protocol.batch import BatchHeader
from penstock.protocol.errors import PenstockError
from penstock.v1 import common_pb2


class AppendRequest(NamedTuple):
    """One batch to append. `acks` is v1.Acks; `now_ms` wall time; `deadline_ms` monotonic, then OUTCOME_UNKNOWN."""

    header: BatchHeader
    payload: bytes
    acks: int
    now_ms: int
    deadline_ms: int
    expected_offset: int | None = None
    leader_epoch: int | None = None
    timestamp_type: int = common_pb2.TIMESTAMP_TYPE_CREATE


class AppendResult(NamedTuple):
    """What is answered for an appended batch; `durability` is v1.Durability."""

    base_offset: int
    leader_epoch: int
    append_time_ms: int
    log_start_offset: int
    durability: int
    duplicate: bool


Done = Callable[[AppendResult | PenstockError], None]


class ReadRequest(NamedTuple):
    """Where a consumer reads. Epochs as in v1.ConsumePosition."""

    offset: int
    max_bytes: int
    isolation: int
    leader_epoch: int | None = None
    last_fetched_epoch: int | None = None


class FoundOffset(NamedTuple):
    """Answer of ListOffsets."""

    offset: int
    timestamp_ms: int | None
    leader_epoch: int
