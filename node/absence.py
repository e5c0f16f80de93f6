"""What speaks against taking a node away on purpose for a while. Pure: questions to the metadata image."""

from collections.abc import Iterator

from penstock.raft.image import MetadataImage, PartitionInfo, TopicInfo

SHOWN = 5
"""Partitions that a message names; of more it says how many."""


def objections(image: MetadataImage, node_id: int) -> list[str]:
    """Say what would stand still that does not now or must not; empty: it may go.

    Partitions with one replica are no reason, see `only_here`: their topic was made so.
    """
    gone = {node_id, *_absent(image)}
    found = [text for topic, info in _in_sync_on(image, node_id) if (text := _objection(topic, info, gone))]
    if len(found) > SHOWN:
        found = [*found[:SHOWN], f"{len(found) - SHOWN} more partitions alike"]
    return [*found, *_quorum_objection(image, node_id)]


def only_here(image: MetadataImage, node_id: int) -> list[str]:
    """The partitions whose one replica the node is: not served while it is away."""
    return [_name(topic, info) for topic, info in _in_sync_on(image, node_id) if len(info.replicas) == 1]


def _in_sync_on(image: MetadataImage, node_id: int) -> Iterator[tuple[TopicInfo, PartitionInfo]]:
    for topic in sorted(image.topics.values(), key=lambda topic: topic.name):
        for info in topic.partitions:
            if node_id in info.isr:
                yield topic, info


def _name(topic: TopicInfo, info: PartitionInfo) -> str:
    return f"partition {info.partition} of {topic.name!r}"


def _absent(image: MetadataImage) -> set[int]:
    """Who is away, or about to be."""
    return {node.node_id for node in image.nodes.values() if node.fenced or node.draining}


def _objection(topic: TopicInfo, info: PartitionInfo, gone: set[int]) -> str | None:
    if len(info.replicas) == 1:
        return None
    rest = [member for member in info.isr if member not in gone]
    minimum = topic.config.min_insync_replicas
    if not rest:
        return f"{_name(topic, info)} is in sync on this node alone"
    if len(rest) < minimum:
        return f"{_name(topic, info)} would be in sync on {rest} only, of at least {minimum}"
    return None


def _quorum_objection(image: MetadataImage, node_id: int) -> Iterator[str]:
    """Without a majority of the voters nothing is decided. One or two voters never are one without this node."""
    voters = [node for node in image.nodes.values() if node.voter]
    if node_id not in {node.node_id for node in voters}:
        return
    others = [node for node in voters if node.node_id != node_id]
    gone = _absent(image)
    absent = sorted(node.node_id for node in others if node.node_id in gone or not node.may_vote)
    if absent and len(others) - len(absent) <= len(voters) // 2:
        yield f"voters {absent} are absent, and without this one there is no majority"
