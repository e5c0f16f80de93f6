"""What `Admin` answers with: frozen descriptions of topics, brokers, the cluster and its health."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.protocol.errors import PenstockError


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Settings of a topic, all resolved."""

    min_insync_replicas: int
    cleanup_policy: str
    """ "delete", "compact" or "compact,delete"."""
    retention_ms: int | None
    """None: records are kept for ever."""
    retention_bytes: int
    """0: unlimited."""
    max_batch_bytes: int
    timestamp_type: str
    """ "create" or "append"."""
    unclean_leader_election: bool
    delete_retention_ms: int
    """How long a tombstone stays, at least, in a compacted topic."""
    min_compaction_lag_ms: int
    """Younger records are not compacted."""
    max_compaction_lag_ms: int | None
    """Older records are compacted whatever the dirty ratio; None: never for that reason."""
    min_dirty_ratio: float
    """Share of a log's bytes that must be uncompacted before it is compacted, 0 to 1."""
    timestamp_before_max_ms: int | None
    """Batches that begin further in the past are refused; None: none. Not where the timestamps are "append"."""
    timestamp_after_max_ms: int
    """Batches with a timestamp further in the future are refused. Not where the timestamps are "append"."""


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """A partition as the metadata has it."""

    partition: int
    leader: int | None
    """Node id; None while none can lead."""
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    """The preferred leader first."""
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    """Outside the ISR but holding every acknowledged record (KIP-966)."""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the metadata has it."""

    topic_id: bytes
    name: str
    replication_factor: int
    config: TopicConfig
    partitions: tuple[PartitionDescription, ...]


@dataclass(frozen=True, slots=True)
class BrokerDescription:
    """A registered node."""

    node_id: int
    host: str
    port: int
    rack: str
    node_epoch: int
    fenced: bool
    """Silent or stopped: leads nothing."""
    durability: str
    """ "commit", "interval" or "os"."""
    voter: bool
    version: str
    store_state: str | None = None
    """How full its store is, as it was last noted: "ok", "nearly-full" or "full"; None: nothing was noted."""


@dataclass(frozen=True, slots=True)
class BrokerUsage:
    """What a node's process had used when it was asked; all None where it did not answer."""

    node_id: int
    cpu_time_ms: int | None
    """Of all its threads since it began, user and system."""
    resident_bytes: int | None
    uptime_ms: int | None
    """Since it began; less than before: it was started anew."""
    error: PenstockError | None = None
    """Why it did not answer; reason UNSUPPORTED: an older version, which cannot tell."""
    store_state: str | None = None
    """How full its store is at this moment: "ok", "nearly-full" or "full"; None, as what follows: it does not tell."""
    store_used_bytes: int | None = None
    """By rows, live ones and those that wait to be deleted."""
    store_capacity_bytes: int | None = None
    """Appends are refused when the used bytes come to that."""
    store_disk_bytes: int | None = None
    """That the store's file takes of the disk."""
    disk_free_bytes: int | None = None
    """On the store's file system."""
    retention_paused: bool | None = None
    """Nothing is dropped by time: the node's clock is not to be trusted."""


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """The cluster at one metadata version."""

    cluster_id: str
    metadata_version: int
    controller: int | None
    feature_level: int
    brokers: tuple[BrokerDescription, ...]
    topics: tuple[TopicDescription, ...]


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """One thing that is wrong."""

    reason: str
    """OFFLINE_PARTITION, UNDER_MIN_ISR, UNDER_REPLICATED, BROKER_FENCED, VOTER_NOT_ADMITTED,
    NO_CONTROLLER."""
    message: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """Is every partition served and fully replicated?"""

    healthy: bool
    problems: tuple[HealthProblem, ...]
    metadata_version: int


@dataclass(frozen=True, slots=True)
class PartitionOffset:
    """An offset found by position or time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    """Of the record at `offset`, where there is one and the query was by time."""
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class StoreRoom:
    """What a node's store has of the disk."""

    node_id: int
    used_bytes: int
    """About what its rows take, and what its file would take after `compact_store`."""
    disk_bytes: int
    """What its file takes."""
