"""What is wrong with the cluster, in words: the problems that GetHealth reports, found in the metadata image."""

from collections.abc import Iterator

from penstock.raft.image import NO_LEADER, MetadataImage, NodeInfo, PartitionInfo, TopicInfo
from penstock.v1 import cluster_service_pb2 as pb
from penstock.v1 import common_pb2 as common


def problems(image: MetadataImage, controller: int | None) -> list[pb.HealthProblem]:
    """All problems, the graver kinds of a partition hiding the lesser ones."""
    found = list(_node_problems(image, controller))
    for topic in sorted(image.topics.values(), key=lambda topic: topic.name):
        for info in topic.partitions:
            found += _partition_problems(topic, info)
    return found


def _node_problems(image: MetadataImage, controller: int | None) -> Iterator[pb.HealthProblem]:
    if controller is None:
        yield pb.HealthProblem(reason="NO_CONTROLLER", message="no controller is known to this node")
    for node in sorted(image.nodes.values(), key=lambda node: node.node_id):
        if node.fenced:
            message = f"broker {node.node_id} at {node.client_address} is fenced: it is silent or stopped"
            yield pb.HealthProblem(reason="BROKER_FENCED", message=message, metadata={"node_id": str(node.node_id)})
        elif (problem := _store_problem(node)) is not None:
            yield problem
        if node.voter and not node.may_vote:
            message = (
                f"broker {node.node_id} came back with a new disk and does not vote yet; "
                "until it does, no other broker's disk may be lost"
            )
            yield pb.HealthProblem(
                reason="VOTER_NOT_ADMITTED", message=message, metadata={"node_id": str(node.node_id)}
            )


def _store_problem(node: NodeInfo) -> pb.HealthProblem | None:
    if node.store_state == common.STORE_STATE_FULL:
        reason, text = "STORE_FULL", "is full: it takes no writes; it leads only where no other broker can"
    elif node.store_state == common.STORE_STATE_NEARLY_FULL:
        reason, text = "STORE_NEARLY_FULL", "is nearly full: delete or trim topics, or give it more room"
    else:
        return None
    message = f"the store of broker {node.node_id} {text}"
    return pb.HealthProblem(reason=reason, message=message, metadata={"node_id": str(node.node_id)})


def _partition_problems(topic: TopicInfo, info: PartitionInfo) -> Iterator[pb.HealthProblem]:
    missing = sorted(set(info.original) - set(info.isr))  # who is being added is on its way
    if info.leader == NO_LEADER:
        reason, text = "OFFLINE_PARTITION", f"has no leader; ISR {list(info.isr)}, ELR {list(info.elr)}"
    elif len(info.isr) < topic.config.min_insync_replicas:
        reason = "UNDER_MIN_ISR"
        text = f"takes no writes: in sync {list(info.isr)} of at least {topic.config.min_insync_replicas}"
    elif missing:
        reason, text = "UNDER_REPLICATED", f"is not in sync on brokers {missing}"
    else:
        return
    yield pb.HealthProblem(
        reason=reason,
        message=f"partition {info.partition} of {topic.name!r} {text}",
        metadata={"topic": topic.name, "partition": str(info.partition)},
    )
