"""What applications hand in and get back: records, deliveries, positions. Immutable; times in ms since the epoch."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from penstock.protocol.errors import PenstockError

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""Key-value pairs beside a record; order and repeats are kept, an absent value is not an empty one."""
Isolation: TypeAlias = Literal["read_uncommitted", "read_committed"]
NO_OFFSET = -1
"""Offset of a delivery that was never acknowledged (acks none)."""
NO_LEADER_EPOCH = -1


class TopicPartition(NamedTuple):
    """A partition by its topic's name."""

    topic: str
    partition: int


class Timestamp(NamedTuple):
    """A position by time: the first record with this timestamp or a later one."""

    ms: int


Position: TypeAlias = int | Literal["earliest", "latest"] | Timestamp
"""Where to read from: an offset, an end of the log, or a time."""


class CommitPoint(NamedTuple):
    """What to commit for a partition of a group."""

    offset: int
    """Of the next record to read."""
    leader_epoch: int | None = None
    """Of the last record read."""
    metadata: str = ""
    """For people and programs; at most 4096 bytes."""


class CommittedOffset(NamedTuple):
    """What a group has committed for a partition."""

    offset: int
    """Of the next record to read."""
    leader_epoch: int | None
    """Of the last record read, where the committer said."""
    metadata: str
    commit_time_ms: int
    member_id: str
    """Empty: committed by no member."""
    generation: int


class NewRecord(NamedTuple):
    """A record for `Producer.append`. `value` None is a tombstone; `timestamp_ms` None is the server's now."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


class Record(NamedTuple):
    """A record as it was read. `value` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    leader_epoch: int


class Delivery(NamedTuple):
    """Where an acknowledged record stands. `offset` is NO_OFFSET with acks none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    leader_epoch: int = NO_LEADER_EPOCH
    """Of the leader that acknowledged it; NO_LEADER_EPOCH where no leader said: acks none, and `Producer.append`."""


class BatchDelivery(NamedTuple):
    """What became of a whole batch: records base_offset .. base_offset + record_count - 1, or `error`."""

    topic: str
    partition: int
    base_offset: int
    record_count: int
    append_time_ms: int
    leader_epoch: int
    durability: str
    """The weakest level this acknowledgement counts: "commit", "interval", "os"; empty where there is none."""
    duplicate: bool
    """A retry found the batch in the log already; the offset is the original's."""
    error: PenstockError | None = None
