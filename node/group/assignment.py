"""A member's assignment as it goes over the wire. Pure."""

from collections.abc import Callable, Mapping

from penstock.node.group.events import Assigned
from penstock.raft.image import GroupPartition
from penstock.v1 import group_service_pb2 as pb


def encoded_assignment(
    assigned: Assigned,
    names: Mapping[bytes, str],
    committed: Callable[[GroupPartition], pb.CommittedOffset | None],
) -> bytes:
    """Return a serialized JoinResponse. A topic that has no name any more is being given up: it is left out."""
    message = pb.Assignment(generation=assigned.generation)
    for partition, granted in assigned.partitions:
        name = names.get(partition.topic_id)
        if name is not None:
            message.partitions.add(
                topic_id=partition.topic_id,
                topic=name,
                partition=partition.partition,
                granted_generation=granted,
                committed=committed(partition),
            )
    for partition in assigned.revoked:
        message.revoked.add(topic_id=partition.topic_id, partition=partition.partition)
    if assigned.revoked:
        message.release_within.FromMilliseconds(assigned.release_within_ms)
    return pb.JoinResponse(assignment=message).SerializeToString()
