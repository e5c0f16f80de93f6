"""Which partitions need another leader, and the elections that give them one. Pure.

Looks again only at what changed: topics are compared by identity, since the image shares what a command did not touch.
"""

from collections.abc import Mapping
from dataclasses import replace

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.election import Choice, better_leader, choose, isr_under, needs_leader
from penstock.raft.image import NO_LEADER, MetadataImage, NodeInfo, PartitionInfo, TopicInfo
from penstock.raft.members import is_full

ELECTIONS_PER_COMMAND = 5_000
"""Keeps a command well below consensus's limit of bytes."""

Key = tuple[bytes, int]


class LeaderWatch:
    """What is to be elected, as of the image last shown to `update`."""

    def __init__(self, preferred_leader_delay_ms: int) -> None:
        self._preferred_leader_delay_ms = preferred_leader_delay_ms
        self._image = MetadataImage()
        self._leaderless: set[Key] = set()
        self._movable: dict[Key, int] = {}
        """Led by a live node while a better one is in sync, and since when."""

    def update(self, image: MetadataImage, now_ms: int) -> None:
        """Take a newer image."""
        old, self._image = self._image, image
        nodes_changed = image.nodes is not old.nodes
        if image.topics is old.topics and not nodes_changed:
            return
        for topic_id in old.topics.keys() - image.topics.keys():
            self._forget(old.topics[topic_id])
        for topic_id, topic in image.topics.items():
            if nodes_changed or old.topics.get(topic_id) is not topic:
                for info in topic.partitions:
                    self._look_at((topic_id, info.partition), info, now_ms)

    def movable_from(self, node_id: int) -> int:
        """Return how many partitions the node leads that another in-sync replica should lead."""
        return sum(self._info(key).leader == node_id for key in self._movable)

    def due(self, now_ms: int) -> list[pb.Election]:
        """Return the elections to hold now; none where nobody can lead."""
        elections = [self._elect(key) for key in sorted(self._leaderless)]
        elections += [self._move(key) for key in sorted(self._movable) if self._is_due(key, now_ms)]
        return [election for election in elections if election is not None]

    def _forget(self, topic: TopicInfo) -> None:
        for info in topic.partitions:
            self._leaderless.discard((topic.topic_id, info.partition))
            self._movable.pop((topic.topic_id, info.partition), None)

    def _look_at(self, key: Key, info: PartitionInfo, now_ms: int) -> None:
        if needs_leader(info, self._image.nodes):
            self._leaderless.add(key)
        else:
            self._leaderless.discard(key)
        if better_leader(info, self._image.nodes) is not None:
            self._movable.setdefault(key, now_ms)
        else:
            self._movable.pop(key, None)

    def _info(self, key: Key) -> PartitionInfo:
        return self._image.topics[key[0]].partitions[key[1]]

    def _is_due(self, key: Key, now_ms: int) -> bool:
        nodes = self._image.nodes
        leader = nodes.get(self._info(key).leader)
        if leader is not None and (leader.draining or is_full(nodes, leader.node_id)):
            return True
        return now_ms - self._movable[key] >= self._preferred_leader_delay_ms

    def _elect(self, key: Key) -> pb.Election | None:
        topic, info, nodes = self._image.topics[key[0]], self._info(key), self._image.nodes
        choice = choose(info, nodes, unclean_allowed=topic.config.unclean_leader_election)
        return None if choice is None else election(key[0], info, choice, nodes)

    def _move(self, key: Key) -> pb.Election | None:
        info, nodes = self._info(key), self._image.nodes
        leader = better_leader(info, nodes)
        if leader is None:
            return None
        return election(key[0], info, Choice(leader, isr_under(leader, info.isr, nodes)), nodes)


def election(topic_id: bytes, info: PartitionInfo, choice: Choice, nodes: Mapping[int, NodeInfo]) -> pb.Election:
    """Return the decision as a command's part. It holds for this partition_epoch and the leader's node_epoch only."""
    result = pb.Election(
        topic_id=topic_id,
        partition=info.partition,
        partition_epoch=info.partition_epoch,
        isr=choice.isr,
        unclean=choice.unclean,
    )
    if choice.leader != NO_LEADER:
        result.leader = choice.leader
        result.leader_node_epoch = nodes[choice.leader].node_epoch
    return result


def resignation(image: MetadataImage, asked: controller.Resignation) -> pb.Election | pb.ChangeResult:
    """Return the election that answers a resignation, or why there is none.

    Another in-sync replica leads; where there is none the same node does, in a new leader epoch (rule 26), or, when it
    leaves the ISR, nobody.
    """
    info = image.partition(asked.topic_id, asked.partition)
    if info is None:
        return pb.ChangeResult(refusal=pb.REFUSAL_UNKNOWN_PARTITION, detail="there is no such partition")
    if (info.leader, info.leader_epoch) != (asked.leader, asked.leader_epoch):
        detail = f"leader is {info.leader} in leader_epoch {info.leader_epoch}"
        return pb.ChangeResult(refusal=pb.REFUSAL_NOT_LEADER, detail=detail)
    if not asked.leave_isr:
        choice = choose(info, image.nodes, avoid=(asked.leader,))
    else:
        others = tuple(member for member in info.isr if member != asked.leader)
        choice = choose(replace(info, isr=others, elr=()), image.nodes) or Choice(NO_LEADER, others)
    if choice is None:
        return pb.ChangeResult(refusal=pb.REFUSAL_STALE, detail="the leader is fenced")
    return election(asked.topic_id, info, choice, image.nodes)
