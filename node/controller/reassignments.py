"""Reassignments: what is asked for made into commands, and which of those under way can end (KIP-455). Pure.

Nothing is remembered: a reassignment is in the image, so it goes on under the next controller. It ends when every
replica of its target is in sync, so that it never costs a copy; one that was turned back, when those that are left are
enough. Looks again only at topics that changed, compared by identity.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.election import choose
from penstock.raft.image import NO_LEADER, MetadataImage, NodeInfo, PartitionInfo, TopicInfo

COMPLETIONS_PER_COMMAND = 5_000
"""Keeps a command well below consensus's limit of bytes."""

Key = tuple[bytes, int]


def reassignment(image: MetadataImage, asked: controller.PartitionTarget) -> pb.Reassignment:
    """Return the command's part; it holds for the present partition_epoch. What is unknown `apply` refuses."""
    info = image.partition(asked.topic_id, asked.partition)
    return pb.Reassignment(
        topic_id=asked.topic_id,
        partition=asked.partition,
        partition_epoch=0 if info is None else info.partition_epoch,
        target=asked.replicas,
    )


class ReassignmentWatch:
    """What can be completed, as of the image last shown to `update`."""

    def __init__(self) -> None:
        self._image = MetadataImage()
        self._ready: dict[bytes, list[int]] = {}
        """By topic id: partitions whose reassignment can end."""

    def update(self, image: MetadataImage) -> None:
        """Take a newer image."""
        old, self._image = self._image, image
        if image.topics is old.topics:
            return
        for topic_id in old.topics.keys() - image.topics.keys():
            self._ready.pop(topic_id, None)
        for topic_id, topic in image.topics.items():
            if old.topics.get(topic_id) is topic:
                continue
            ready = [info.partition for info in topic.partitions if is_complete(topic, info)]
            if ready:
                self._ready[topic_id] = ready
            else:
                self._ready.pop(topic_id, None)

    def due(self, busy: Collection[Key]) -> list[pb.ReassignmentCompletion]:
        """Return the ends to propose now, none for partitions that are `busy`."""
        topics, nodes = self._image.topics, self._image.nodes
        return [
            completion(topic_id, topics[topic_id].partitions[index], nodes)
            for topic_id in sorted(self._ready)
            for index in self._ready[topic_id]
            if (topic_id, index) not in busy
        ]


def is_complete(topic: TopicInfo, info: PartitionInfo) -> bool:
    """Whether the reassignment can end. A partition without a leader gets one first."""
    if not info.target or info.leader == NO_LEADER:
        return False
    left = set(info.isr).intersection(info.target)
    turned_back = info.target == info.original
    return len(left) >= topic.config.min_insync_replicas and (turned_back or len(left) == len(info.target))


def completion(topic_id: bytes, info: PartitionInfo, nodes: Mapping[int, NodeInfo]) -> pb.ReassignmentCompletion:
    """Return the end of a reassignment; a leader that leaves is followed by the first fit member of the target."""
    result = pb.ReassignmentCompletion(
        topic_id=topic_id, partition=info.partition, partition_epoch=info.partition_epoch
    )
    if info.leader not in info.target:
        isr = tuple(member for member in info.isr if member in info.target)
        choice = choose(replace(info, replicas=info.target, adding=(), target=(), isr=isr, elr=()), nodes)
        if choice is not None:
            result.leader = choice.leader
            result.leader_node_epoch = nodes[choice.leader].node_epoch
    return result
