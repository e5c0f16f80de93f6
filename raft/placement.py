"""Where the replicas of new partitions go: spread over racks and nodes, leaders balanced. Pure and deterministic.

Greedy, a partition at a time. A leader goes where this topic leads least, then where the cluster does; a follower to a
rack that the partition does not use yet, then where this topic has the fewest replicas, then the cluster. Ties are
broken so that the seconds in line of one leader differ (a dead node's leaderships spread), then by a rotation that
starts at `seed`, so that small topics do not all begin at the same node.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.raft.image import MetadataImage, TopicInfo
from penstock.raft.members import is_full


class TooFewNodesError(ValueError):
    """More replicas are wanted than there are nodes for them."""

    def __init__(self, replication_factor: int, nodes: int) -> None:
        super().__init__(f"replication factor {replication_factor} is above the number of live nodes, {nodes}")
        self.replication_factor = replication_factor
        self.nodes = nodes


@dataclass
class Load:
    """How many partitions each node leads (by preference) and holds."""

    leaders: Counter[int] = field(default_factory=Counter)
    replicas: Counter[int] = field(default_factory=Counter)
    heirs: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often a node is second in line behind a leader."""

    def add(self, replicas: Sequence[int]) -> None:
        """Count one partition."""
        self.leaders[replicas[0]] += 1
        self.replicas.update(replicas)
        if len(replicas) > 1:
            self.heirs[replicas[0], replicas[1]] += 1


def load_of(topics: Collection[TopicInfo]) -> Load:
    """Count the partitions of these topics."""
    load = Load()
    for topic in topics:
        for info in topic.partitions:
            load.add(info.replicas)
    return load


def candidates(image: MetadataImage) -> dict[int, str]:
    """Return the nodes that new replicas may go to, with their racks: live and not about to stop."""
    return {
        node_id: image.nodes[node_id].rack
        for node_id in sorted(image.nodes)
        if not image.nodes[node_id].fenced and not image.nodes[node_id].draining
    }


@dataclass
class _Placer:
    racks: Mapping[int, str]
    seed: int
    topic: Load
    cluster: Load

    def place(self, index: int, replication_factor: int) -> tuple[int, ...]:
        order = self._rotated(index)
        leader = min(
            order, key=lambda node: (self.topic.leaders[node], self.cluster.leaders[node], self.topic.replicas[node])
        )
        chosen = [leader]
        while len(chosen) < replication_factor:
            used = Counter(self.racks[node] for node in chosen)
            free = [node for node in order if node not in chosen]
            chosen.append(min(free, key=lambda node: self._cost(leader, node, used)))
        self.topic.add(chosen)
        self.cluster.add(chosen)
        return tuple(chosen)

    def _cost(self, leader: int, node: int, used: Counter[str]) -> tuple[int, ...]:
        pair = (leader, node)
        in_topic = (self.topic.replicas[node], self.topic.heirs[pair])
        return (used[self.racks[node]], *in_topic, self.cluster.replicas[node], self.cluster.heirs[pair])

    def _rotated(self, index: int) -> list[int]:
        order = list(self.racks)
        start = (self.seed + index) % len(order)
        return order[start:] + order[:start]


def place(
    image: MetadataImage, partitions: int, replication_factor: int, seed: int, present: TopicInfo | None = None
) -> list[tuple[int, ...]]:
    """Return the replicas of new partitions, the preferred leader first. Raises TooFewNodesError.

    On nodes whose store is full only where the others are too few.
    `present`: the topic that the partitions are added to; they take their place behind its own in the balance.
    """
    racks = candidates(image)
    roomy = {node_id: rack for node_id, rack in racks.items() if not is_full(image.nodes, node_id)}
    if replication_factor <= len(roomy):
        racks = roomy
    if not 0 < replication_factor <= len(racks):
        raise TooFewNodesError(replication_factor, len(racks))
    known = len(present.partitions) if present is not None else 0
    topic = load_of([present] if present is not None else [])
    placer = _Placer(racks, seed, topic, load_of(image.topics.values()))
    return [placer.place(known + index, replication_factor) for index in range(partitions)]
