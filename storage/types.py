"""The values that storage takes and gives. Offsets count records; timestamps are ms since the Unix epoch."""

from typing import NamedTuple

from penstock.protocol.batch import NO_TIMESTAMP, BatchHeader
from penstock.storage.producers import ProducerState
from penstock.v1 import common_pb2

APPEND_TIME = common_pb2.TIMESTAMP_TYPE_APPEND
NO_EPOCH = -1
"""Where no leader epoch is: an empty log has no last one."""


class PartitionKey(NamedTuple):
    """Identity of a partition: the topic's id (16 bytes) and the index in it."""

    topic_id: bytes
    partition: int

    def __str__(self) -> str:
        return f"{self.topic_id.hex()}/{self.partition}"


class LogBatch(NamedTuple):
    """A batch with its place: what is stored, replicated and fetched."""

    base_offset: int
    last_offset: int
    leader_epoch: int
    append_time_ms: int
    header: BatchHeader
    payload: bytes  # a serialized v1.RecordBatch, as the producer sent it, or as compaction made it
    timestamp_type: int = common_pb2.TIMESTAMP_TYPE_CREATE

    @property
    def max_time_ms(self) -> int:
        """The latest time of a record, by the clock that counts; where none has a time, when the batch was appended."""
        latest = self.header.max_timestamp_ms
        return self.append_time_ms if self.timestamp_type == APPEND_TIME or latest == NO_TIMESTAMP else latest


class EpochEnd(NamedTuple):
    """A leader epoch of a log and the offset after its last record."""

    leader_epoch: int
    end_offset: int


class EpochStart(NamedTuple):
    """A leader epoch of a log and the offset of its first record."""

    leader_epoch: int
    start_offset: int


class LogState(NamedTuple):
    """The durable state of one log. From `log_start_offset` on it may be read."""

    log_start_offset: int = 0
    log_end_offset: int = 0  # next offset to be written
    high_watermark: int = 0  # as last checkpointed; offsets below are committed
    last_epoch: int = NO_EPOCH  # leader epoch of the last batch
    acted_epoch: int = NO_EPOCH  # highest leader epoch acted in (rule 26)
    size_bytes: int = 0  # of the batches, with their headers
    first_offset: int = 0  # base of the first batch; at or below the log start, which may be inside that batch
    record_count: int = 0  # in the batches
    cleaned_offset: int = 0  # below it no record has a later one of its key below it: compacted as of then
    tombstones_below: int = 0  # tombstones below it may be gone, and no record that one of them superseded is left


class BatchSummary(NamedTuple):
    """What retention asks of a batch."""

    base_offset: int
    last_offset: int
    size_bytes: int
    record_count: int
    max_time_ms: int  # latest time of a record, by the clock that counts


class ReplicaSeed(NamedTuple):
    """What a replica that starts at `start_offset`, where a batch begins, must know of the log before it (rule 14)."""

    start_offset: int
    epochs: tuple[EpochStart, ...]
    producers: tuple[tuple[int, ProducerState], ...]  # by producer id
    tombstones_below: int = 0  # of the log that it is of (rule 19)


class StoreIdentity(NamedTuple):
    """Who a store is. `store_id` (16 random bytes) is drawn when the directory is formatted."""

    cluster_id: str
    node_id: int
    store_id: bytes
