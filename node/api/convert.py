"""The metadata image in the public API's messages."""

from collections.abc import Iterable

from penstock.raft.image import NO_LEADER, MetadataImage, NodeInfo, PartitionInfo, TopicInfo
from penstock.v1 import cluster_service_pb2 as cluster
from penstock.v1 import topic_service_pb2 as topics


def partition_message(info: PartitionInfo) -> topics.Partition:
    """One partition; `leader` is absent where there is none."""
    return topics.Partition(
        partition=info.partition,
        replicas=info.replicas,
        isr=info.isr,
        elr=info.elr,
        leader=None if info.leader == NO_LEADER else info.leader,
        leader_epoch=info.leader_epoch,
        partition_epoch=info.partition_epoch,
    )


def topic_message(topic: TopicInfo) -> topics.Topic:
    """A topic with all its settings and partitions."""
    return topics.Topic(
        topic_id=topic.topic_id,
        name=topic.name,
        replication_factor=len(topic.partitions[0].settled),
        config=topic.config.to_proto(),
        partitions=[partition_message(info) for info in topic.partitions],
    )


def broker_message(node: NodeInfo) -> cluster.Broker:
    """A node as clients see it."""
    return cluster.Broker(
        node_id=node.node_id,
        host=node.client_address.host,
        port=node.client_address.port,
        rack=node.rack,
        node_epoch=node.node_epoch,
        fenced=node.fenced,
        durability=node.durability,  # type: ignore[arg-type]  # a plain int of the enum
        voter=node.voter and node.may_vote,
        version=node.version,
        store_state=node.store_state,  # type: ignore[arg-type]
    )


def metadata_message(
    image: MetadataImage, controller: int | None, selected: Iterable[TopicInfo]
) -> cluster.ClusterMetadata:
    """The cluster, with the selected topics by name."""
    return cluster.ClusterMetadata(
        cluster_id=image.cluster_id,
        metadata_version=image.version,
        controller=controller,
        feature_level=image.feature_level,
        brokers=[broker_message(image.nodes[node_id]) for node_id in sorted(image.nodes)],
        topics=[topic_message(topic) for topic in sorted(selected, key=lambda topic: topic.name)],
    )
