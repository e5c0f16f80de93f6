"""Applying commands about topics: create, alter, add partitions, delete. Pure.

Checks what the state's own invariants need; what users may ask for is checked by the controller before it proposes.
"""

from collections.abc import Iterable
from dataclasses import replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.limits import MAX_PARTITIONS_PER_TOPIC
from penstock.raft.apply_nodes import ID_BYTES
from penstock.raft.draft import Draft
from penstock.raft.image import PartitionInfo, RememberedRequest, TopicConfig, TopicInfo
from penstock.raft.members import is_live, with_isr
from penstock.raft.records import config_of
from penstock.raft.refused import Refused, malformed, stale

MAX_NAME = 255
MAX_REQUEST_ID = 255
MAX_REPLICAS = 1000


def create_topic(draft: Draft, command: pb.CreateTopic, index: int) -> pb.MetadataResult:
    """Add a topic, or answer with the one that the same request has made."""
    earlier = draft.requests.get(command.request_id) if command.request_id else None
    if earlier is not None:
        return _earlier_topic(draft, command, earlier)
    if len(command.topic_id) != ID_BYTES or command.topic_id in draft.topics:
        raise malformed("the topic id has not 16 bytes, or is used")
    if not 0 < len(command.name) <= MAX_NAME or len(command.request_id) > MAX_REQUEST_ID:
        raise malformed("the name is empty, or name or request_id too long")
    if command.name in draft.topic_ids:
        raise Refused(pb.REFUSAL_TOPIC_EXISTS, f"a topic named {command.name!r} exists")
    topic = TopicInfo(
        topic_id=command.topic_id,
        name=command.name,
        config=_config(command.config),
        partitions=_placed(draft, command.partitions, 0),
        internal=command.internal,
        config_epoch=index,
    )
    draft.put_topic(topic)
    if command.request_id:
        draft.remember(command.request_id, RememberedRequest(topic.topic_id, topic.name))
    return pb.MetadataResult(topic_id=topic.topic_id)


def _earlier_topic(draft: Draft, command: pb.CreateTopic, earlier: RememberedRequest) -> pb.MetadataResult:
    if earlier.name != command.name:
        text = f"request_id {command.request_id!r} has created topic {earlier.name!r}"
        raise Refused(pb.REFUSAL_REQUEST_REUSED, text)
    if earlier.topic_id not in draft.topics:
        text = f"topic {earlier.name!r} was created by request_id {command.request_id!r} and deleted since"
        raise Refused(pb.REFUSAL_UNKNOWN_TOPIC, text)
    return pb.MetadataResult(topic_id=earlier.topic_id, repeated_request=True)


def _config(record: pb.StoredTopicConfig) -> TopicConfig:
    if record.min_insync_replicas < 1:
        raise malformed("min_insync_replicas is 0")
    if not 0 <= record.min_dirty_ratio <= 1:  # NaN would make an image differ from itself
        raise malformed("min_dirty_ratio is not in 0..1")
    return config_of(record)


def _placed(draft: Draft, placements: Iterable[pb.PartitionPlacement], first: int) -> tuple[PartitionInfo, ...]:
    partitions = tuple(_partition(draft, placement, first + i) for i, placement in enumerate(placements))
    if not partitions or first + len(partitions) > MAX_PARTITIONS_PER_TOPIC:
        raise malformed(f"no partitions, or more than {MAX_PARTITIONS_PER_TOPIC}")
    return partitions


def _partition(draft: Draft, placement: pb.PartitionPlacement, index: int) -> PartitionInfo:
    replicas, isr = tuple(placement.replicas), tuple(sorted(placement.isr))
    check_replicas(draft, replicas)
    if len(set(isr)) != len(isr) or not set(isr) <= set(replicas) or placement.leader not in isr:
        raise malformed(f"leader {placement.leader}, ISR {isr} and replicas {replicas} do not fit together")
    gone = [node_id for node_id in isr if not is_live(draft.nodes, node_id)]
    if gone:
        raise stale(f"nodes {gone} are fenced")
    return PartitionInfo(
        partition=index,
        replicas=replicas,
        isr=isr,
        elr=(),
        leader=placement.leader,
        leader_epoch=0,
        partition_epoch=0,
        leader_node_epoch=draft.nodes[placement.leader].node_epoch,
    )


def check_replicas(draft: Draft, replicas: tuple[int, ...]) -> None:
    """Refuse a list of replicas that is empty, repeats a node or names one that never registered."""
    if not 0 < len(replicas) <= MAX_REPLICAS or len(set(replicas)) != len(replicas):
        raise malformed(f"replicas {replicas[:MAX_REPLICAS]} are none, too many, or repeat a node")
    unknown = [node_id for node_id in replicas if node_id not in draft.nodes]
    if unknown:
        raise Refused(pb.REFUSAL_UNKNOWN_NODE, f"nodes {unknown} have not registered")


def _known(draft: Draft, topic_id: bytes) -> TopicInfo:
    topic = draft.topics.get(topic_id)
    if topic is None:
        raise Refused(pb.REFUSAL_UNKNOWN_TOPIC, f"no topic has the id {topic_id.hex()}")
    return topic


def alter_topic_config(draft: Draft, command: pb.AlterTopicConfig, index: int) -> pb.MetadataResult:
    """Replace the settings.

    An ISR that a lower min_insync_replicas makes sufficient empties the ELR in the same command: from then on the high
    watermark moves without it.
    """
    topic = _known(draft, command.topic_id)
    if command.config_epoch != topic.config_epoch:
        raise stale(f"settings of {topic.name!r} have changed since")
    config = _config(command.config)
    draft.put_topic(replace(topic, config=config, config_epoch=index))
    for info in topic.partitions:
        if info.elr and len(info.isr) >= config.min_insync_replicas:
            draft.put_partition(topic.topic_id, with_isr(info, info.isr, config.min_insync_replicas))
    return pb.MetadataResult(topic_id=topic.topic_id)


def add_partitions(draft: Draft, command: pb.AddPartitions, index: int) -> pb.MetadataResult:
    """Add partitions behind the present ones."""
    del index
    topic = _known(draft, command.topic_id)
    present = len(topic.partitions)
    if command.present_partitions != present:
        raise stale(f"topic {topic.name!r} has {present} partitions by now")
    added = _placed(draft, command.partitions, present)
    draft.put_topic(replace(topic, partitions=topic.partitions + added))
    return pb.MetadataResult(topic_id=topic.topic_id)


def delete_topic(draft: Draft, command: pb.DeleteTopic, index: int) -> pb.MetadataResult:
    """Remove the topic of this id; one of the same name made later has another id (rule 24)."""
    del index
    topic = _known(draft, command.topic_id)
    draft.drop_topic(topic)
    return pb.MetadataResult(topic_id=topic.topic_id)
