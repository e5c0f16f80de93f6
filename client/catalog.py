"""What the client knows of the cluster: topics, leaders, addresses. Pure: fed with metadata and with leader hints.

Invariants: metadata of a version lower than seen is dropped; a leader epoch lower than seen never replaces a higher one
of the same topic id (DESIGN rule 12). A topic deleted and created again is another topic (rule 24).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from penstock.v1 import cluster_service_pb2, common_pb2, topic_service_pb2

NO_LEADER = -1
_COMPACTING = frozenset({common_pb2.CLEANUP_POLICY_COMPACT, common_pb2.CLEANUP_POLICY_COMPACT_AND_DELETE})


class Leadership(NamedTuple):
    """Who leads a partition, and since which epoch."""

    leader: int
    """Node id, or NO_LEADER."""
    leader_epoch: int


class KnownTopic(NamedTuple):
    """A topic as last seen."""

    topic_id: bytes
    name: str
    partitions: tuple[Leadership, ...]
    max_batch_bytes: int
    append_time: bool
    """Records carry the leader's time of append."""
    compacted: bool = False
    """Every record must have a key."""


class Catalog:
    """See the module. `changes` counts what was learned, so that a shell can see whether there is news."""

    def __init__(self) -> None:
        self.version = 0
        self.cluster_id = ""
        self.changes = 0
        self.brokers: dict[int, str] = {}
        """Address of each broker by node id, fenced ones included."""
        self.live: tuple[str, ...] = ()
        """Addresses of the brokers that are not fenced."""
        self.topics: dict[str, KnownTopic] = {}
        self.absent: set[str] = set()
        """Names asked for that no topic had."""

    def learn(self, metadata: cluster_service_pb2.ClusterMetadata, names: Iterable[str] | None) -> bool:
        """Take over metadata of the topics `names` (None: all). False: it is older than what is known."""
        if metadata.metadata_version < self.version:
            return False
        self.version = metadata.metadata_version
        self.cluster_id = metadata.cluster_id
        self.brokers = {broker.node_id: f"{broker.host}:{broker.port}" for broker in metadata.brokers}
        self.live = tuple(self.brokers[broker.node_id] for broker in metadata.brokers if not broker.fenced)
        found = {topic.name: self._merged(topic) for topic in metadata.topics}
        asked = dict.fromkeys((*self.topics, *found) if names is None else names)
        for name in asked:
            if name in found:
                self.topics[name] = found[name]
                self.absent.discard(name)
            else:
                self.topics.pop(name, None)
                self.absent.add(name)
        self.changes += 1
        return True

    def learn_leader(self, topic_id: bytes, partition: int, metadata: Mapping[str, str]) -> bool:
        """Take the hint of a NOT_LEADER error ({leader, leader_epoch, host, port}); True where it was news."""
        try:
            hint = Leadership(int(metadata["leader"]), int(metadata["leader_epoch"]))
        except (KeyError, ValueError):
            return False
        topic = self.topic_of(topic_id)
        if topic is None or partition >= len(topic.partitions):
            return False
        if hint.leader < 0 or hint.leader_epoch <= topic.partitions[partition].leader_epoch:
            return False
        if metadata.get("host") and metadata.get("port"):
            self.brokers[hint.leader] = f"{metadata['host']}:{metadata['port']}"
        partitions = (*topic.partitions[:partition], hint, *topic.partitions[partition + 1 :])
        self.topics[topic.name] = topic._replace(partitions=partitions)
        self.changes += 1
        return True

    def topic_of(self, topic_id: bytes) -> KnownTopic | None:
        """Find a topic by its id."""
        return next((topic for topic in self.topics.values() if topic.topic_id == topic_id), None)

    def leader_address(self, leadership: Leadership) -> str | None:
        """Where the leader is, where there is one and its address is known."""
        return self.brokers.get(leadership.leader)

    def _merged(self, topic: topic_service_pb2.Topic) -> KnownTopic:
        fresh = tuple(
            Leadership(p.leader if p.HasField("leader") else NO_LEADER, p.leader_epoch) for p in topic.partitions
        )
        known = self.topics.get(topic.name)
        if known is not None and known.topic_id == topic.topic_id:
            kept = known.partitions[: len(fresh)]
            merged = tuple(
                old if old.leader_epoch > new.leader_epoch else new for old, new in zip(kept, fresh, strict=False)
            )
            fresh = merged + fresh[len(merged) :]
        return KnownTopic(
            topic.topic_id,
            topic.name,
            fresh,
            topic.config.max_batch_bytes,
            topic.config.timestamp_type == common_pb2.TIMESTAMP_TYPE_APPEND,
            topic.config.cleanup_policy in _COMPACTING,
        )
