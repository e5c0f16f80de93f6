"""Topics that the nodes keep for themselves, made when they are first needed. Pure: id and placement seed are given.

Owns which there are, with what settings. Invariant: as many partitions as they were made with, for which record is in
which is part of what is stored.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

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


class Seed(NamedTuple):
    """What would be drawn by chance."""

    topic_id: bytes
    placement: int


def plan_internal(image: MetadataImage, name: str, limits: Limits, seed: Seed, voters: Collection[int]) -> Plan:
    """Plan an internal topic, or find the one that is there. `voters`: of consensus, registered or not.

    Raises INVALID_ARGUMENT, and LEADER_NOT_AVAILABLE where the nodes for it are not there yet.
    """
    settings = _SETTINGS.get(name)
    if settings is None:
        text = f"no internal topic is named {name[:300]!r}; there are {', '.join(sorted(_SETTINGS))}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    present = image.topic_ids.get(name)
    if present is not None:
        return Plan(None, image.topics[present])
    _check_nodes(image, name, voters)
    assigned = _placed(image, limits.offsets_topic_partitions, seed.placement)
    config = topic_config.initial(settings, len(assigned[0]))
    return _creation(image, TopicInfo(seed.topic_id, name, config, (), internal=True), assigned)


def _check_nodes(image: MetadataImage, name: str, voters: Collection[int]) -> None:
    """Where the voters were never all there the topic waits for them, or it would have too few replicas for good."""
    missing = [str(node_id) for node_id in sorted(voters) if node_id not in image.nodes]
    if missing and len(image.nodes) < REPLICATION_FACTOR:
        nodes = f"node {missing[0]} has" if len(missing) == 1 else f"nodes {', '.join(missing)} have"
        text = f"{name} is made as soon as {nodes} been there once: it needs replicas on them"
        raise PenstockError(Reason.LEADER_NOT_AVAILABLE, text)
    if not candidates(image):
        raise PenstockError(Reason.LEADER_NOT_AVAILABLE, f"{name} cannot be made: no node lives that could lead it")


def _placed(image: MetadataImage, partitions: int, seed: int) -> list[tuple[int, ...]]:
    """Place on live nodes, and where they are too few on the others too: those catch up when they are back.

    Else a topic that is made while a node is down would have too few replicas for good.
    """
    factor = min(REPLICATION_FACTOR, len(image.nodes))
    live = candidates(image)
    placed = place_on(image, partitions, min(factor, len(live)), seed)
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
