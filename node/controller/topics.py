"""What users ask for about topics, checked and made into commands. Pure: topic ids and placement seeds are given.

Owns every message that a user gets to see about a bad topic operation. A plan that passes here may still be refused by
`apply` when another command came before it: then it is made again on the newer image.
"""

from collections.abc import Sequence
from typing import NamedTuple

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_PARTITIONS_PER_TOPIC, topic_name_problem
from penstock.protocol.reasons import Reason
from penstock.raft import topic_config
from penstock.raft.election import isr_under
from penstock.raft.image import MetadataImage, PartitionInfo, TopicConfig, TopicInfo
from penstock.raft.members import is_full, is_live
from penstock.raft.placement import TooFewNodesError, candidates, place
from penstock.raft.records import config_record
from penstock.v1 import topic_service_pb2 as v1

DEFAULT_REPLICATION_FACTOR = 3
MAX_REQUEST_ID = 255
TOPIC_ID_BYTES = 16


class Plan(NamedTuple):
    """A command, and the topic as it will be; no command: it is so already."""

    command: pb.MetadataCommand | None
    topic: TopicInfo


# ---- create


def plan_create(image: MetadataImage, request: v1.CreateTopicRequest, topic_id: bytes, seed: int) -> Plan:
    """Plan a new topic, or find the one that the same request_id has made. Raises PenstockError."""
    _check_name(request.name)
    earlier = _made_earlier(image, request)
    if earlier is not None:
        return Plan(None, earlier)
    if request.name in image.topic_ids:
        text = f"a topic named {request.name!r} exists"
        raise PenstockError(Reason.TOPIC_EXISTS, text, {"topic": request.name})
    assigned = _assigned(image, request) if request.assignments else _placed(image, request, seed)
    config = _initial_config(request.config, len(assigned[0]))
    placements = [placement(image, replicas) for replicas in assigned]
    command = pb.CreateTopic(
        topic_id=topic_id,
        name=request.name,
        config=config_record(config),
        partitions=placements,
        request_id=request.request_id,
    )
    topic = TopicInfo(topic_id, request.name, config, preview(image, placements, 0))
    return Plan(pb.MetadataCommand(create_topic=command), topic)


def _check_name(name: str) -> None:
    problem = topic_name_problem(name)
    if problem is not None:
        raise PenstockError(Reason.INVALID_TOPIC_NAME, problem)


def _made_earlier(image: MetadataImage, request: v1.CreateTopicRequest) -> TopicInfo | None:
    if len(request.request_id) > MAX_REQUEST_ID:
        text = f"request_id has {len(request.request_id)} characters, at most {MAX_REQUEST_ID} are allowed"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    earlier = image.requests.get(request.request_id) if request.request_id else None
    if earlier is None:
        return None
    if earlier.name != request.name:
        text = f"request_id {request.request_id!r} was used before, for topic {earlier.name!r}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    topic = image.topics.get(earlier.topic_id)
    if topic is None:
        text = f"topic {request.name!r} was created by this request_id and deleted since; use a new one"
        raise PenstockError(Reason.UNKNOWN_TOPIC, text, {"topic": request.name})
    return topic


def _placed(image: MetadataImage, request: v1.CreateTopicRequest, seed: int) -> list[tuple[int, ...]]:
    partitions = request.partitions or 1
    _check_partitions(partitions)
    factor = request.replication_factor or max(1, min(DEFAULT_REPLICATION_FACTOR, len(image.nodes)))
    return place_on(image, partitions, factor, seed)


def place_on(
    image: MetadataImage, partitions: int, factor: int, seed: int, present: TopicInfo | None = None
) -> list[tuple[int, ...]]:
    """Place new partitions on live nodes. Raises PenstockError where they are too few."""
    try:
        return place(image, partitions, factor, seed, present)
    except TooFewNodesError as error:
        live, known = len(candidates(image)), len(image.nodes)
        more = f" ({known - live} of {known} nodes are down or stopping)" if known > live else ""
        details = {"replication_factor": str(factor), "live_nodes": str(live)}
        raise PenstockError(Reason.INVALID_REPLICATION_FACTOR, f"{error}{more}", details) from error


def _check_partitions(partitions: int) -> None:
    if partitions > MAX_PARTITIONS_PER_TOPIC:
        text = f"{partitions} partitions are asked for, a topic may have {MAX_PARTITIONS_PER_TOPIC}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)


def _assigned(image: MetadataImage, request: v1.CreateTopicRequest) -> list[tuple[int, ...]]:
    if request.partitions or request.replication_factor:
        text = "give either assignments, or partitions and replication_factor"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    assigned = [tuple(assignment.replicas) for assignment in request.assignments]
    _check_partitions(len(assigned))
    for index, replicas in enumerate(assigned):
        _check_assignment(image, index, replicas)
        if len(replicas) != len(assigned[0]):
            text = f"partition {index} has {len(replicas)} replicas, partition 0 has {len(assigned[0])}"
            raise PenstockError(Reason.INVALID_REPLICATION_FACTOR, text)
    return assigned


def _check_assignment(image: MetadataImage, index: int, replicas: tuple[int, ...]) -> None:
    if not replicas or len(set(replicas)) != len(replicas):
        text = f"assignment of partition {index}: replicas {list(replicas)} are none, or repeat a node"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    unknown = [node_id for node_id in replicas if node_id not in image.nodes]
    if unknown:
        text = f"assignment of partition {index}: no nodes {unknown}; nodes are {sorted(image.nodes)}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    if not any(is_live(image.nodes, node_id) for node_id in replicas):
        text = f"assignment of partition {index}: all of its nodes {list(replicas)} are down"
        raise PenstockError(Reason.INVALID_REPLICATION_FACTOR, text)


def _initial_config(asked: v1.TopicConfig, replication_factor: int) -> TopicConfig:
    try:
        return topic_config.initial(asked, replication_factor)
    except topic_config.InvalidConfigError as error:
        raise _invalid_config(error) from error


def _invalid_config(error: topic_config.InvalidConfigError) -> PenstockError:
    return PenstockError(Reason.INVALID_CONFIG, str(error), {"setting": error.name})


def placement(image: MetadataImage, replicas: Sequence[int]) -> pb.PartitionPlacement:
    """Return a new partition on these nodes: in sync are those that live, of which there must be one."""
    live = [node_id for node_id in replicas if is_live(image.nodes, node_id)]
    leader = min(live, key=lambda node_id: (is_full(image.nodes, node_id), image.nodes[node_id].draining))
    return pb.PartitionPlacement(replicas=replicas, isr=isr_under(leader, live, image.nodes), leader=leader)


def preview(image: MetadataImage, placements: Sequence[pb.PartitionPlacement], first: int) -> tuple[PartitionInfo, ...]:
    """Return new partitions, of which the first has this index, as they will be."""
    return tuple(
        PartitionInfo(
            partition=first + index,
            replicas=tuple(planned.replicas),
            isr=tuple(planned.isr),
            elr=(),
            leader=planned.leader,
            leader_epoch=0,
            partition_epoch=0,
            leader_node_epoch=image.nodes[planned.leader].node_epoch,
        )
        for index, planned in enumerate(placements)
    )


# ---- alter, add partitions, delete


def plan_alter(image: MetadataImage, request: v1.AlterTopicRequest) -> Plan:
    """Plan a change of settings; none where they are so already. Raises PenstockError."""
    topic = _named(image, request.name)
    _refuse_internal(topic)
    # also of those that are being reassigned, whether that is completed or turned back
    replication_factor = min(min(len(info.settled), len(info.original)) for info in topic.partitions)
    try:
        config = topic_config.altered(topic.config, request.config, request.reset, replication_factor)
    except topic_config.InvalidConfigError as error:
        raise _invalid_config(error) from error
    if config == topic.config:
        return Plan(None, topic)
    command = pb.AlterTopicConfig(
        topic_id=topic.topic_id, config=config_record(config), config_epoch=topic.config_epoch
    )
    altered = TopicInfo(topic.topic_id, topic.name, config, topic.partitions, topic.internal, topic.config_epoch)
    return Plan(pb.MetadataCommand(alter_topic_config=command), altered)


def plan_add(image: MetadataImage, request: v1.AddPartitionsRequest, seed: int) -> Plan:
    """Plan more partitions. Raises PenstockError."""
    topic = _named(image, request.name)
    _refuse_internal(topic)
    present = len(topic.partitions)
    if request.partitions <= present:
        text = f"topic {topic.name!r} has {present} partitions; {request.partitions} is not more"
        raise PenstockError(Reason.INVALID_ARGUMENT, text, {"partitions": str(present)})
    _check_partitions(request.partitions)
    factor = len(topic.partitions[0].settled)
    added = place_on(image, request.partitions - present, factor, seed, topic)
    placements = [placement(image, replicas) for replicas in added]
    command = pb.AddPartitions(topic_id=topic.topic_id, present_partitions=present, partitions=placements)
    partitions = topic.partitions + preview(image, placements, present)
    larger = TopicInfo(topic.topic_id, topic.name, topic.config, partitions, topic.internal, topic.config_epoch)
    return Plan(pb.MetadataCommand(add_partitions=command), larger)


def plan_delete(image: MetadataImage, request: v1.DeleteTopicRequest) -> Plan:
    """Plan the removal of a topic, by name or by id. Raises PenstockError."""
    kind = request.WhichOneof("topic")
    if kind is None:
        raise PenstockError(Reason.INVALID_ARGUMENT, "say which topic: name or topic_id")
    topic = _named(image, request.name) if kind == "name" else _identified(image, request.topic_id)
    _refuse_internal(topic)
    return Plan(pb.MetadataCommand(delete_topic=pb.DeleteTopic(topic_id=topic.topic_id)), topic)


def _named(image: MetadataImage, name: str) -> TopicInfo:
    topic_id = image.topic_ids.get(name)
    if topic_id is None:
        raise PenstockError(Reason.UNKNOWN_TOPIC, f"no topic is named {name[:300]!r}", {"topic": name[:300]})
    return image.topics[topic_id]


def _identified(image: MetadataImage, topic_id: bytes) -> TopicInfo:
    if len(topic_id) != TOPIC_ID_BYTES:
        text = f"topic_id has {len(topic_id)} bytes, not {TOPIC_ID_BYTES}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    topic = image.topics.get(topic_id)
    if topic is None:
        text = f"no topic has the id {topic_id.hex()}"
        raise PenstockError(Reason.UNKNOWN_TOPIC, text, {"topic_id": topic_id.hex()})
    return topic


def _refuse_internal(topic: TopicInfo) -> None:
    if topic.internal:
        raise PenstockError(Reason.INVALID_ARGUMENT, f"topic {topic.name!r} is internal: it cannot be changed")
