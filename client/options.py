"""Settings of producers and consumers, checked once. Units are in the names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

import grpc

from penstock.client.checks import between, invalid, one_of
from penstock.client.group.listener import RebalanceListener
from penstock.client.records import BatchDelivery, Delivery, Isolation
from penstock.client.sequencing import MAX_IN_FLIGHT
from penstock.protocol.compression import COMPRESSIONS
from penstock.protocol.errors import PenstockError
from penstock.v1 import common_pb2

OnDelivery: TypeAlias = Callable[[Delivery | None, PenstockError | None], None]
"""Called on the event loop with the delivery, or with the error."""
OnBatch: TypeAlias = Callable[[BatchDelivery], None]
"""Called on the event loop once for each batch."""

ACKS = {"none": common_pb2.ACKS_NONE, "leader": common_pb2.ACKS_LEADER, "all": common_pb2.ACKS_ALL}
ISOLATIONS = {
    "read_uncommitted": common_pb2.ISOLATION_READ_UNCOMMITTED,
    "read_committed": common_pb2.ISOLATION_READ_COMMITTED,
}
MAX_CLIENT_BATCH_BYTES = 16 * 1024 * 1024


class ProducerOptions(TypedDict, total=False):
    """Keyword arguments of Producer; see ProducerConfig."""

    acks: Literal["none", "leader", "all"]
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"]
    linger_ms: float
    batch_bytes: int
    buffer_bytes: int
    max_in_flight: int
    idempotence: bool | None
    delivery_timeout_ms: int
    request_timeout_ms: int
    on_batch: OnBatch | None
    credentials: grpc.ChannelCredentials | None
    address_map: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class ProducerConfig:
    """Settings of a producer and their defaults."""

    acks: str = "all"
    """ "none": no answer; "leader": the leader has it; "all": every in-sync replica has it."""
    compression: str = "none"
    linger_ms: float = 5
    """How long a batch that is not full waits for more records."""
    batch_bytes: int = 256 * 1024
    """A batch is full at this size."""
    buffer_bytes: int = 64 * 1024 * 1024
    """Memory for records that are not settled."""
    max_in_flight: int = MAX_IN_FLIGHT
    """Batches of one partition under way at the same time; 1 without idempotence."""
    idempotence: bool | None = None
    """A retry never duplicates. Needs acks "all"; None: on where acks is "all"."""
    delivery_timeout_ms: int = 120_000
    """A record neither acknowledged nor refused by then is given up."""
    request_timeout_ms: int = 15_000
    """How long the leader may wait for replicas before it answers OUTCOME_UNKNOWN."""
    on_batch: OnBatch | None = None
    credentials: grpc.ChannelCredentials | None = None
    address_map: Mapping[str, str] | None = None
    """Addresses, "host:port", to dial instead of those that brokers advertise: tunnels, NAT, proxies in tests."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        one_of("acks", self.acks, ACKS)
        one_of("compression", self.compression, COMPRESSIONS)
        between("linger_ms", self.linger_ms, 0, 60_000)
        between("batch_bytes", self.batch_bytes, 1, MAX_CLIENT_BATCH_BYTES)
        between("buffer_bytes", self.buffer_bytes, 1024, 1 << 40)
        between("max_in_flight", self.max_in_flight, 1, MAX_IN_FLIGHT)
        between("delivery_timeout_ms", self.delivery_timeout_ms, 1, 1 << 40)
        between("request_timeout_ms", self.request_timeout_ms, 1, 1 << 31)
        if self.idempotence and self.acks != "all":
            raise invalid("idempotence needs acks='all'")

    @property
    def is_idempotent(self) -> bool:
        """Resolve `idempotence`."""
        return self.acks == "all" if self.idempotence is None else self.idempotence


class GroupOptions(TypedDict, total=False):
    """Keyword arguments of a Consumer in a group; see group.options.GroupConfig."""

    group: str | None
    topics: str | Sequence[str]
    pattern: str | None
    instance_id: str | None
    client_id: str | None
    assignor: Literal["sticky", "range", "roundrobin"] | None
    session_timeout_ms: int
    rebalance_timeout_ms: int
    max_poll_interval_ms: int
    auto_commit: bool
    auto_commit_interval_ms: int
    start: Literal["earliest", "latest", "error"]
    listener: RebalanceListener | None


class ConsumerOptions(GroupOptions, total=False):
    """Keyword arguments of Consumer; see ConsumerConfig."""

    isolation: Isolation
    auto_offset_reset: Literal["earliest", "latest", "error"]
    on_divergence: Literal["error", "continue"]
    check_crc: bool
    prefetch_bytes: int
    max_response_bytes: int
    request_timeout_ms: int
    credentials: grpc.ChannelCredentials | None
    address_map: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """Settings of a consumer and their defaults."""

    isolation: str = "read_uncommitted"
    auto_offset_reset: str = "error"
    """Where to go on when retention has dropped the position's records."""
    on_divergence: str = "error"
    """What to do when the log no longer holds what was read: raise, or go on where it agrees."""
    check_crc: bool = True
    prefetch_bytes: int = 16 * 1024 * 1024
    """Batches fetched and not given out yet, over all leaders; one batch of each may go beyond."""
    max_response_bytes: int = 4 * 1024 * 1024
    request_timeout_ms: int = 30_000
    """For ListOffsets and metadata, retries included."""
    credentials: grpc.ChannelCredentials | None = None
    address_map: Mapping[str, str] | None = None
    """Addresses, "host:port", to dial instead of those that brokers advertise: tunnels, NAT, proxies in tests."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        one_of("isolation", self.isolation, ISOLATIONS)
        one_of("auto_offset_reset", self.auto_offset_reset, ("earliest", "latest", "error"))
        one_of("on_divergence", self.on_divergence, ("error", "continue"))
        between("prefetch_bytes", self.prefetch_bytes, 1, 1 << 40)
        between("max_response_bytes", self.max_response_bytes, 1, 32 * 1024 * 1024)
        between("request_timeout_ms", self.request_timeout_ms, 1, 1 << 31)
