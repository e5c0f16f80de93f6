"""The cluster's metadata as of one Raft index: frozen values that any thread may read.

Owns the types. Invariants (kept by `raft.state`, checked by its tests): leader in isr and not fenced; isr and elr are
disjoint subsets of replicas; no fenced node in any isr; target a subset of replicas, empty where nothing is reassigned;
partition_epoch rises with every change of a partition, leader_epoch with every change of its leadership. Never mutated
after it was built: `raft.draft` makes the next one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.raft.topic_config import TopicConfig

__all__ = [
    "EMPTY_IMAGE",
    "NO_LEADER",
    "Address",
    "MetadataImage",
    "NodeInfo",
    "PartitionInfo",
    "RememberedRequest",
    "TopicConfig",
    "TopicInfo",
]

NO_LEADER = -1
"""`PartitionInfo.leader` where none can lead now."""


class Address(NamedTuple):
    """Where a listener is reached."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as it registered last."""

    node_id: int
    node_epoch: int
    """Raft index of the registration; a new one is a new incarnation."""
    store_id: bytes
    start_id: bytes
    """Of the process that registered (rule 27)."""
    client_address: Address
    peer_address: Address
    rack: str = ""
    fenced: bool = False
    """Silent or stopped: in no ISR, leads nothing. Ends only by a new registration (rule 5)."""
    draining: bool = False
    """Is about to stop: gets no leadership while another can have it. Ends only by a new registration."""
    durability: int = 0
    """v1.Durability."""
    version: str = ""
    supported_level: int = 0
    """Highest feature level that its software knows."""
    voter: bool = False
    """The Raft configuration names it."""
    journal_id: bytes = b""
    may_vote: bool = False
    """Its journal is a founding one or was admitted; a voter whose journal is new is removed and added (rule 27)."""
    store_state: int = 0
    """v1.StoreState as it was last noted; 0: not since it registered. FULL: it joins no ISR, see `members.is_full`."""


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """Who has a partition. Node ids; `isr` and `elr` ascending, `replicas` with the preferred leader first."""

    partition: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    leader: int
    leader_epoch: int
    partition_epoch: int
    leader_node_epoch: int
    """The node_epoch to which the leader epoch is granted (rule 26); 0 where there is no leader."""
    adding: tuple[int, ...] = ()
    """The last of `replicas`: those that the reassignment has added."""
    target: tuple[int, ...] = ()
    """What `replicas` will be when the reassignment is complete; empty: none is under way."""

    @property
    def original(self) -> tuple[int, ...]:
        """The replicas from before the reassignment, in their order."""
        return self.replicas[: len(self.replicas) - len(self.adding)]

    @property
    def settled(self) -> tuple[int, ...]:
        """The replicas as they will be when nothing more is reassigned."""
        return self.target or self.replicas

    @property
    def removing(self) -> tuple[int, ...]:
        """Those that leave when the reassignment is complete."""
        return tuple(node_id for node_id in self.replicas if node_id not in self.settled)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic; `partitions[i].partition == i`."""

    topic_id: bytes
    name: str
    config: TopicConfig
    partitions: tuple[PartitionInfo, ...]
    internal: bool = False
    config_epoch: int = 0
    """Raft index of the last change of `config`; compare-and-set for the next."""


class RememberedRequest(NamedTuple):
    """What a creating call with a request_id has made."""

    topic_id: bytes
    name: str


@dataclass(frozen=True, slots=True)
class MetadataImage:
    """Everything. `version` is the Raft index of the last applied command."""

    version: int = 0
    cluster_id: str = ""
    feature_level: int = 0
    nodes: Mapping[int, NodeInfo] = field(default_factory=dict)
    topics: Mapping[bytes, TopicInfo] = field(default_factory=dict)
    topic_ids: Mapping[str, bytes] = field(default_factory=dict)
    """By name."""
    next_producer_id: int = 0
    requests: Mapping[str, RememberedRequest] = field(default_factory=dict)
    """By request_id, the oldest first; bounded."""

    def partition(self, topic_id: bytes, index: int) -> PartitionInfo | None:
        """Return a partition by its topic's id and its index, or None."""
        topic = self.topics.get(topic_id)
        if topic is None or not 0 <= index < len(topic.partitions):
            return None
        return topic.partitions[index]


EMPTY_IMAGE = MetadataImage()
"""Before the first command."""
