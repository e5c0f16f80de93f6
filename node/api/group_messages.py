"""Groups as the API shows them: from the metadata, and what the coordinator knows of their offsets. Pure."""

from collections.abc import Collection, Mapping

from google.protobuf.duration_pb2 import Duration

from penstock.node.group.describing import group_state
from penstock.raft.image import NO_LEADER, GroupInfo, GroupPartition, MemberInfo, MetadataImage, TopicInfo
from penstock.v1 import group_service_pb2 as pb


def summary(group: GroupInfo, image: MetadataImage) -> pb.GroupSummary:
    """A line of the list."""
    place = image.offsets_partition(group.group_id)
    leader = NO_LEADER if place is None else place.leader
    return pb.GroupSummary(
        group_id=group.group_id,
        state=group_state(group),
        generation=group.generation,
        assignor=group.assignor,  # type: ignore[arg-type]  # a plain int of the enum
        members=len(group.members),
        coordinator=None if leader == NO_LEADER else leader,
    )


def member_message(member: MemberInfo, topics: Mapping[bytes, TopicInfo]) -> pb.GroupMember:
    """A member with its partitions."""
    message = pb.GroupMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        host=member.host,
        subscription=pb.Subscription(topics=member.topics, pattern=member.pattern),
        joined_ms=member.joined_ms,
        session_timeout=_duration(member.session_timeout_ms),
        rebalance_timeout=_duration(member.rebalance_timeout_ms),
        max_poll_interval=_duration(member.max_poll_interval_ms) if member.max_poll_interval_ms else None,
        assignor=member.assignor or None,  # type: ignore[arg-type]
    )
    for partition in in_order(member.owned.keys() | member.target, topics):
        owned = partition in member.owned
        message.partitions.add(
            topic_id=partition.topic_id,
            topic=topics[partition.topic_id].name,
            partition=partition.partition,
            owned=owned,
            revoked=owned and partition not in member.target,
        )
    return message


def partition_rows(
    group: GroupInfo, offsets: Mapping[GroupPartition, pb.CommittedOffset], topics: Mapping[bytes, TopicInfo]
) -> list[pb.GroupPartition]:
    """The partitions that are assigned or have a committed offset, with their owner."""
    owners = {partition: member.member_id for member in group.members.values() for partition in member.owned}
    targets = {partition for member in group.members.values() for partition in member.target}
    return [
        pb.GroupPartition(
            topic_id=partition.topic_id,
            topic=topics[partition.topic_id].name,
            partition=partition.partition,
            member_id=owners.get(partition, ""),
            committed=offsets.get(partition),
        )
        for partition in in_order(owners.keys() | targets | offsets.keys(), topics)
    ]


def in_order(partitions: Collection[GroupPartition], topics: Mapping[bytes, TopicInfo]) -> list[GroupPartition]:
    """By topic name and partition, without those of topics that are gone."""
    known = (partition for partition in partitions if partition.topic_id in topics)
    return sorted(known, key=lambda partition: (topics[partition.topic_id].name, partition.partition))


def _duration(time_ms: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(time_ms)
    return duration
