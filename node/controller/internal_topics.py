"""Topics that the nodes keep for themselves, made when they are first needed. Pure: id and placement seed are given.

Owns which there are, with what settings. Invariant: as many partitions as they were made with, for which record is in
which is part of what is stored.
"""

from collections.abc import Mapping

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.config import Limits
from penstock.node.controller.topics import Plan, place_on, placement, preview
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft import topic_config
from penstock.raft.image import OFFSETS_TOPIC, MetadataImage, TopicInfo
from penstock.raft.placement import candidates
from penstock.raft.records import config_record
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as v1

REPLICATION_FACTOR = 3
"""Where there are as many nodes."""

_OFFSETS = v1.TopicConfig(cleanup_policy=common.CLEANUP_POLICY_COMPACT, min_dirty_ratio=0.3)
_OFFSETS.min_compaction_lag.FromSeconds(600)  # what was committed in this time, `group history` shows whole
_SETTINGS: Mapping[str, v1.TopicConfig] = {OFFSETS_TOPIC: _OFFSETS}
"""By name; min_insync_replicas is the default for the number of replicas."""


def plan_internal(image: MetadataImage, name: str, limits: Limits, topic_id: bytes, seed: int) -> Plan:
    """Plan an internal topic, or find the one that is there. Raises PenstockError."""
    settings = _SETTINGS.get(name)
    if settings is None:
        text = f"no internal topic is named {name[:300]!r}; there are {', '.join(sorted(_SETTINGS))}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    present = image.topic_ids.get(name)
    if present is not None:
        return Plan(None, image.topics[present])
    assigned = _placed(image, limits.offsets_topic_partitions, seed)
    config = topic_config.initial(settings, len(assigned[0]))
    return _creation(image, TopicInfo(topic_id, name, config, (), internal=True), assigned)


def _placed(image: MetadataImage, partitions: int, seed: int) -> list[tuple[int, ...]]:
    """Place on live nodes, and where they are too few on the others too: those catch up when they are back.

    Else a topic that is made while a node is down would have too few replicas for good.
    """
    factor = max(1, min(REPLICATION_FACTOR, len(image.nodes)))
    live = candidates(image)
    placed = place_on(image, partitions, max(1, min(factor, len(live))), seed)
    absent = [node_id for node_id in sorted(image.nodes) if node_id not in live]
    missing = factor - len(placed[0])
    return [replicas + _rotated(absent, seed + index)[:missing] for index, replicas in enumerate(placed)]


def _rotated(nodes: list[int], start: int) -> tuple[int, ...]:
    at = start % len(nodes) if nodes else 0
    return (*nodes[at:], *nodes[:at])


def _creation(image: MetadataImage, topic: TopicInfo, assigned: list[tuple[int, ...]]) -> Plan:
    placements = [placement(image, replicas) for replicas in assigned]
    command = pb.CreateTopic(
        topic_id=topic.topic_id,
        name=topic.name,
        config=config_record(topic.config),
        partitions=placements,
        internal=True,
    )
    made = TopicInfo(topic.topic_id, topic.name, topic.config, preview(image, placements, 0), internal=True)
    return Plan(pb.MetadataCommand(create_topic=command), made)
