"""The image to and from its stored form (MetadataSnapshot). Equal images have equal bytes."""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.command import SUPPORTED_LEVEL
from penstock.raft.group_records import GroupEncoder, group_of
from penstock.raft.image import Address, MetadataImage, NodeInfo, PartitionInfo, RememberedRequest, TopicInfo
from penstock.raft.topic_config import TopicConfig

FORMAT = 1

_SINCE_LEVEL_3 = (
    "delete_retention_ms",
    "min_compaction_lag_ms",
    "max_compaction_lag_ms",
    "min_dirty_ratio",
    "timestamp_before_max_ms",
    "timestamp_after_max_ms",
)
"""Settings that are stored only where they are not the default: so what lower levels stored stays as it is."""
_DEFAULTS = TopicConfig()


class SnapshotError(Exception):
    """The snapshot cannot be read; the node must not go on without it."""


def encode_image(image: MetadataImage, groups: GroupEncoder | None = None) -> bytes:
    """Return the snapshot of an image. `groups`: of whoever encodes one image after the other."""
    snapshot = pb.MetadataSnapshot(
        format=FORMAT,
        version=image.version,
        cluster_id=image.cluster_id,
        feature_level=image.feature_level,
        next_producer_id=image.next_producer_id,
        nodes=[_node_record(image.nodes[node_id]) for node_id in sorted(image.nodes)],
        topics=[_topic_record(image.topics[topic_id]) for topic_id in sorted(image.topics)],
        requests=[
            pb.RequestRecord(request_id=request_id, topic_id=request.topic_id, name=request.name)
            for request_id, request in image.requests.items()
        ],
    )
    # the groups have the highest field number: this is what serializing them with the rest would give
    return snapshot.SerializeToString(deterministic=True) + (groups or GroupEncoder()).encode(image.groups)


def decode_image(data: bytes) -> MetadataImage:
    """Return the image of a snapshot. Raises SnapshotError."""
    try:
        snapshot = pb.MetadataSnapshot.FromString(data)
    except DecodeError as error:
        raise SnapshotError(f"the metadata snapshot is not readable: {error}") from error
    if snapshot.format != FORMAT:
        text = f"the metadata snapshot has format {snapshot.format}, this version reads {FORMAT}: upgrade this node"
        raise SnapshotError(text)
    if snapshot.feature_level > SUPPORTED_LEVEL:  # it may hold what this version would drop
        text = f"the metadata snapshot has feature level {snapshot.feature_level}, this version knows {SUPPORTED_LEVEL}"
        raise SnapshotError(f"{text}: upgrade this node")
    topics = {record.topic_id: _topic_of(record) for record in snapshot.topics}
    return MetadataImage(
        version=snapshot.version,
        cluster_id=snapshot.cluster_id,
        feature_level=snapshot.feature_level,
        nodes={record.node_id: _node_of(record) for record in snapshot.nodes},
        topics=topics,
        topic_ids={topic.name: topic.topic_id for topic in topics.values()},
        next_producer_id=snapshot.next_producer_id,
        requests={record.request_id: RememberedRequest(record.topic_id, record.name) for record in snapshot.requests},
        groups={record.group_id: group_of(record) for record in snapshot.groups},
    )


def config_record(config: TopicConfig) -> pb.StoredTopicConfig:
    """Return settings as they are stored."""
    return pb.StoredTopicConfig(
        min_insync_replicas=config.min_insync_replicas,
        cleanup_policy=config.cleanup_policy,
        retention_time_ms=config.retention_time_ms,
        retention_bytes=config.retention_bytes,
        max_batch_bytes=config.max_batch_bytes,
        timestamp_type=config.timestamp_type,
        unclean_leader_election=config.unclean_leader_election,
        **{name: getattr(config, name) for name in _SINCE_LEVEL_3 if getattr(config, name) != getattr(_DEFAULTS, name)},
    )


def config_of(record: pb.StoredTopicConfig) -> TopicConfig:
    """Return stored settings."""
    return TopicConfig(
        min_insync_replicas=record.min_insync_replicas,
        cleanup_policy=record.cleanup_policy,
        retention_time_ms=record.retention_time_ms if record.HasField("retention_time_ms") else None,
        retention_bytes=record.retention_bytes,
        max_batch_bytes=record.max_batch_bytes,
        timestamp_type=record.timestamp_type,
        unclean_leader_election=record.unclean_leader_election,
        **{field.name: value for field, value in record.ListFields() if field.name in _SINCE_LEVEL_3},
    )


def _node_record(node: NodeInfo) -> pb.NodeRecord:
    return pb.NodeRecord(
        node_id=node.node_id,
        node_epoch=node.node_epoch,
        store_id=node.store_id,
        start_id=node.start_id,
        client_address=_address_record(node.client_address),
        peer_address=_address_record(node.peer_address),
        rack=node.rack,
        fenced=node.fenced,
        draining=node.draining,
        durability=node.durability,
        version=node.version,
        supported_level=node.supported_level,
        voter=node.voter,
        journal_id=node.journal_id,
        may_vote=node.may_vote,
        store_state=node.store_state,
    )


def _node_of(record: pb.NodeRecord) -> NodeInfo:
    return NodeInfo(
        node_id=record.node_id,
        node_epoch=record.node_epoch,
        store_id=record.store_id,
        start_id=record.start_id,
        client_address=_address_of(record.client_address),
        peer_address=_address_of(record.peer_address),
        rack=record.rack,
        fenced=record.fenced,
        draining=record.draining,
        durability=record.durability,
        version=record.version,
        supported_level=record.supported_level,
        voter=record.voter,
        journal_id=record.journal_id,
        may_vote=record.may_vote,
        store_state=record.store_state,
    )


def _address_record(address: Address) -> pb.NodeAddress:
    return pb.NodeAddress(host=address.host, port=address.port)


def _address_of(record: pb.NodeAddress) -> Address:
    return Address(record.host, record.port)


def _topic_record(topic: TopicInfo) -> pb.TopicRecord:
    return pb.TopicRecord(
        topic_id=topic.topic_id,
        name=topic.name,
        config=config_record(topic.config),
        partitions=[_partition_record(info) for info in topic.partitions],
        internal=topic.internal,
        config_epoch=topic.config_epoch,
    )


def _topic_of(record: pb.TopicRecord) -> TopicInfo:
    return TopicInfo(
        topic_id=record.topic_id,
        name=record.name,
        config=config_of(record.config),
        partitions=tuple(_partitions_of(record.partitions)),
        internal=record.internal,
        config_epoch=record.config_epoch,
    )


def _partition_record(info: PartitionInfo) -> pb.PartitionRecord:
    return pb.PartitionRecord(
        replicas=info.replicas,
        isr=info.isr,
        elr=info.elr,
        leader=info.leader,
        leader_epoch=info.leader_epoch,
        partition_epoch=info.partition_epoch,
        leader_node_epoch=info.leader_node_epoch,
        adding=info.adding,
        target=info.target,
    )


def _partitions_of(records: Iterable[pb.PartitionRecord]) -> Iterable[PartitionInfo]:
    for index, record in enumerate(records):
        yield PartitionInfo(
            partition=index,
            replicas=tuple(record.replicas),
            isr=tuple(record.isr),
            elr=tuple(record.elr),
            leader=record.leader,
            leader_epoch=record.leader_epoch,
            partition_epoch=record.partition_epoch,
            leader_node_epoch=record.leader_node_epoch,
            adding=tuple(record.adding),
            target=tuple(record.target),
        )
