"""Finds the partition that a request names, or says precisely why it cannot be served here."""

from collections.abc import Callable
from typing import Protocol

from penstock.node.partition import Partition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import NO_LEADER, MetadataImage, PartitionInfo, TopicInfo
from penstock.raft.view import View
from penstock.storage import PartitionKey

TOPIC_ID_BYTES = 16


class PartitionSource(Protocol):
    """Where the replicas of this node are found."""

    def find(self, key: PartitionKey) -> Partition | None:
        """Return the replica of this node, or None."""
        ...


class Locator:
    """Looks partitions up by topic id in the applied metadata and among this node's replicas."""

    def __init__(self, node_id: int, view: View, replicas: PartitionSource, serving: Callable[[], bool]) -> None:
        self._node_id = node_id
        self._view = view
        self._replicas = replicas
        self._serving = serving

    @property
    def image(self) -> MetadataImage:
        """The applied metadata."""
        return self._view.image

    def leader_of(self, topic_id: bytes, index: int) -> Partition:
        """Return this node's replica if it leads. Raises UNKNOWN_TOPIC, UNKNOWN_PARTITION, NOT_LEADER and the like."""
        self.check_serving()
        return self.leading(topic_id, index)

    def leading(self, topic_id: bytes, index: int) -> Partition:
        """Do as `leader_of`, for a caller that has just called `check_serving`."""
        partition = self._replicas.find(PartitionKey(topic_id, index))
        if partition is not None and partition.is_leader:
            return partition
        topic, info = self.known(topic_id, index)
        raise self._not_leader(topic, info)

    def _not_leader(self, topic: TopicInfo, info: PartitionInfo) -> PenstockError:
        """NOT_LEADER with leader, epoch and address; LEADER_NOT_AVAILABLE where there is none (yet)."""
        where = {"topic": topic.name, "partition": str(info.partition), "leader_epoch": str(info.leader_epoch)}
        name = f"partition {info.partition} of {topic.name!r}"
        if info.leader == NO_LEADER:
            text = f"{name} has no leader now; ISR {list(info.isr)}, ELR {list(info.elr)}"
            return PenstockError(Reason.LEADER_NOT_AVAILABLE, text, where)
        if info.leader == self._node_id:
            return PenstockError(Reason.LEADER_NOT_AVAILABLE, f"this node is about to lead {name}", where)
        node = self.image.nodes.get(info.leader)
        where["leader"] = str(info.leader)
        if node is not None:
            where |= {"host": node.client_address.host, "port": str(node.client_address.port)}
        text = f"this node does not lead {name}; node {info.leader} does"
        return PenstockError(Reason.NOT_LEADER, text, where)

    def is_serving(self) -> bool:
        """Whether this node may speak for the cluster at this moment."""
        return self._serving()

    def check_serving(self) -> None:
        """Refuse while this node may not speak for the cluster. Raises NOT_SERVING."""
        if not self.is_serving():
            raise PenstockError(Reason.NOT_SERVING, "this node is starting, stopping, or cut off from the controller")

    def known(self, topic_id: bytes, index: int) -> tuple[TopicInfo, PartitionInfo]:
        """Return what the metadata says of a partition. Raises where it knows none."""
        topic = self.topic_of(topic_id)
        return topic, partition_of_topic(topic, index)

    def topic_of(self, topic_id: bytes) -> TopicInfo:
        """Return the topic of this id. Raises UNKNOWN_TOPIC."""
        if len(topic_id) != TOPIC_ID_BYTES:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"topic_id has {len(topic_id)} bytes, not {TOPIC_ID_BYTES}")
        topic = self.image.topics.get(topic_id)
        if topic is None:
            self.check_serving()  # metadata that is behind must not deny what exists
            text = f"no topic has the id {topic_id.hex()}; it may have been deleted and created again"
            raise PenstockError(Reason.UNKNOWN_TOPIC, text, {"topic_id": topic_id.hex()})
        return topic

    def topic_named(self, name: str) -> TopicInfo:
        """Return the topic of this name. Raises UNKNOWN_TOPIC."""
        topic_id = self.image.topic_ids.get(name)
        if topic_id is None:
            self.check_serving()
            raise PenstockError(Reason.UNKNOWN_TOPIC, f"no topic is named {name!r}", {"topic": name})
        return self.image.topics[topic_id]

    def explain(self, error: PenstockError, topic_id: bytes, index: int) -> PenstockError:
        """Add to a NOT_LEADER error where the leader is, as far as this node knows."""
        if error.reason is not Reason.NOT_LEADER:
            return error
        try:
            return self._not_leader(*self.known(topic_id, index))
        except PenstockError as gone:
            return gone


def partition_of_topic(topic: TopicInfo, index: int) -> PartitionInfo:
    """Return the topic's partition of this index. Raises UNKNOWN_PARTITION."""
    if not 0 <= index < len(topic.partitions):
        text = f"topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {index}"
        raise PenstockError(Reason.UNKNOWN_PARTITION, text, {"topic": topic.name, "partition": str(index)})
    return topic.partitions[index]
