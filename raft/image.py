"""The cluster's metadata as of one Raft index: frozen values that any thread may read.

Owns the types. Invariants (kept by `raft.state`, checked by its tests): leader in isr and not fenced; isr and elr are
disjoint subsets of replicas; no fenced node in any isr; target a subset of replicas, empty where nothing is reassigned;
partition_epoch rises with every change of a partition, leader_epoch with every change of its leadership. Never mutated
after it was built: `raft.draft` makes the next one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from penstock.protocol.keys import partition_of
from penstock.raft.topic_config import TopicConfig

__all__ = [
    "EMPTY_IMAGE",
    "NO_LEADER",
    "OFFSETS_TOPIC",
    "Address",
    "GroupInfo",
    "GroupPartition",
    "MemberInfo",
    "MetadataImage",
    "NodeInfo",
    "PartitionInfo",
    "RememberedRequest",
    "TopicConfig",
    "TopicInfo",
    "offsets_index",
]

NO_LEADER = -1
"""`PartitionInfo.leader` where none can lead now."""


OFFSETS_TOPIC = "__offsets"
"""Internal topic of the groups' offsets. The leader of a group's partition of it is the group's coordinator."""
GROUPS_PLACED = 65_536
"""Groups whose partition of __offsets is remembered: nodes ask for it again and again."""


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


class GroupPartition(NamedTuple):
    """A partition as groups know it: by its topic's id."""

    topic_id: bytes
    partition: int


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """A member of a consumer group. Times ms."""

    member_id: str
    instance_id: str = ""
    client_id: str = ""
    host: str = ""
    topics: tuple[str, ...] = ()
    """Subscribed by name, in order."""
    pattern: str = ""
    """RE2; subscribed are the topics whose whole name it matches. Empty: none."""
    assignor: int = 0
    """v1.Assignor that it wants; 0: any."""
    session_timeout_ms: int = 0
    rebalance_timeout_ms: int = 0
    max_poll_interval_ms: int = 0
    """0: not watched."""
    joined_ms: int = 0
    owned: Mapping[GroupPartition, int] = field(default_factory=dict)
    """What it may read until it has given it up, with the generation in which it got that."""
    target: frozenset[GroupPartition] = frozenset()
    """What it is to have."""


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A consumer group. No partition is owned by two members (rule 21)."""

    group_id: str
    group_epoch: int
    """Raft index of its last change; compare-and-set for the next."""
    generation: int = 0
    """Number of the present target; rises with each rebalance."""
    assignor: int = 0
    """v1.Assignor that made the target; 0: none yet."""
    members: Mapping[str, MemberInfo] = field(default_factory=dict)
    """By member_id."""
    cause: str = ""
    """Of the present generation."""
    rebalanced_ms: int = 0
    """When the present generation began, by its coordinator's clock."""
    emptied_ms: int = 0
    """Since when it has no members, by its coordinator's clock; 0: it has some."""


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
    groups: Mapping[str, GroupInfo] = field(default_factory=dict)
    """By group_id."""

    def partition(self, topic_id: bytes, index: int) -> PartitionInfo | None:
        """Return a partition by its topic's id and its index, or None."""
        topic = self.topics.get(topic_id)
        if topic is None or not 0 <= index < len(topic.partitions):
            return None
        return topic.partitions[index]

    def offsets_partition(self, group_id: str) -> PartitionInfo | None:
        """Return the partition of __offsets whose leader coordinates the group; None before that topic is made."""
        topic = self.topics.get(self.topic_ids.get(OFFSETS_TOPIC, b""))
        return topic.partitions[offsets_index(group_id, len(topic.partitions))] if topic is not None else None


@lru_cache(maxsize=GROUPS_PLACED)
def offsets_index(group_id: str, partitions: int) -> int:
    """Return which of the partitions of __offsets is the group's. Part of what is stored: it never changes."""
    return partition_of(group_id.encode(), partitions)


EMPTY_IMAGE = MetadataImage()
"""Before the first command."""
