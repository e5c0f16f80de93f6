"""The next image while a command is being applied: copies only what the command touches.

Invariant: the image it began with is never changed; a draft that is dropped leaves nothing behind.
"""

from collections.abc import Iterator
from dataclasses import replace

from penstock.raft.image import GroupInfo, MetadataImage, NodeInfo, PartitionInfo, RememberedRequest, TopicInfo

REMEMBERED_REQUESTS = 4096
"""request_ids of creating calls that are remembered; the oldest goes first."""


class Draft:
    """Reads see what was put before. `build` ends it."""

    def __init__(self, image: MetadataImage) -> None:
        self._image = image
        self.cluster_id = image.cluster_id
        self.feature_level = image.feature_level
        self.next_producer_id = image.next_producer_id
        self.nodes = image.nodes
        self.topics = image.topics
        self.topic_ids = image.topic_ids
        self.requests = image.requests
        self.groups = image.groups
        self._partitions: dict[bytes, dict[int, PartitionInfo]] = {}
        self._groups: dict[str, GroupInfo] | None = None

    def partition(self, topic_id: bytes, index: int) -> PartitionInfo | None:
        """Return the partition as it stands in the draft."""
        changed = self._partitions.get(topic_id, {}).get(index)
        return changed or self._image.partition(topic_id, index)

    def each_partition(self) -> Iterator[tuple[TopicInfo, PartitionInfo]]:
        """Return all partitions as of the draft's beginning."""
        for topic in self._image.topics.values():
            for info in topic.partitions:
                yield topic, info

    def put_partition(self, topic_id: bytes, info: PartitionInfo) -> None:
        """Replace a partition of an existing topic."""
        self._partitions.setdefault(topic_id, {})[info.partition] = info

    def put_node(self, node: NodeInfo) -> None:
        """Add or replace a node."""
        self.nodes = {**self.nodes, node.node_id: node}

    def put_topic(self, topic: TopicInfo) -> None:
        """Add or replace a topic (its name never changes)."""
        self.topics = {**self.topics, topic.topic_id: topic}
        if topic.name not in self.topic_ids:
            self.topic_ids = {**self.topic_ids, topic.name: topic.topic_id}

    def drop_topic(self, topic: TopicInfo) -> None:
        """Remove a topic."""
        self.topics = {topic_id: other for topic_id, other in self.topics.items() if topic_id != topic.topic_id}
        self.topic_ids = {name: topic_id for name, topic_id in self.topic_ids.items() if name != topic.name}

    def remember(self, request_id: str, request: RememberedRequest) -> None:
        """Remember what a request has made, and forget the oldest above the bound."""
        requests = {**self.requests, request_id: request}
        while len(requests) > REMEMBERED_REQUESTS:
            del requests[next(iter(requests))]
        self.requests = requests

    def put_group(self, group: GroupInfo) -> None:
        """Add or replace a group."""
        self._own_groups()[group.group_id] = group

    def drop_group(self, group_id: str) -> None:
        """Remove a group."""
        del self._own_groups()[group_id]

    def _own_groups(self) -> dict[str, GroupInfo]:
        """Return what may be changed: there are many groups, so they are copied once a command."""
        if self._groups is None:
            self.groups = self._groups = dict(self._image.groups)
        return self._groups

    def build(self, version: int) -> MetadataImage:
        """Return the image with all that was put."""
        topics = self.topics
        if self._partitions:
            topics = dict(topics)
            for topic_id, changed in self._partitions.items():
                topic = topics[topic_id]
                partitions = tuple(changed.get(info.partition, info) for info in topic.partitions)
                topics[topic_id] = replace(topic, partitions=partitions)
        return MetadataImage(
            version=version,
            cluster_id=self.cluster_id,
            feature_level=self.feature_level,
            nodes=self.nodes,
            topics=topics,
            topic_ids=self.topic_ids,
            next_producer_id=self.next_producer_id,
            requests=self.requests,
            groups=self.groups,
        )
