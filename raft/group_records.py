"""Consumer groups to and from their stored form. Equal groups have equal bytes. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.record_set import varint
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo


def group_record(group: GroupInfo) -> pb.GroupRecord:
    """Return a group as it is stored."""
    return pb.GroupRecord(
        group_id=group.group_id,
        group_epoch=group.group_epoch,
        generation=group.generation,
        assignor=group.assignor,
        members=[member_record(group.members[member_id]) for member_id in sorted(group.members)],
        cause=group.cause,
        rebalanced_ms=group.rebalanced_ms,
        emptied_ms=group.emptied_ms,
    )


class GroupEncoder:
    """The groups of one image after the other, as MetadataSnapshot has them: only those that changed are encoded anew.

    Consensus stands still while a snapshot is made: thousands of groups would take it longer than an election.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[GroupInfo, bytes]] = {}

    def encode(self, groups: Mapping[str, GroupInfo]) -> bytes:
        """Return the field `groups` of MetadataSnapshot, serialized."""
        known, self._known = self._known, {}
        for group_id in sorted(groups):
            group, former = groups[group_id], known.get(group_id)
            same = former is not None and former[0] is group
            self._known[group_id] = former if former is not None and same else (group, _field(group))
        return b"".join(field for _, field in self._known.values())


_TAG = varint(pb.MetadataSnapshot.GROUPS_FIELD_NUMBER << 3 | 2)


def _field(group: GroupInfo) -> bytes:
    data = group_record(group).SerializeToString(deterministic=True)
    return _TAG + varint(len(data)) + data


def group_of(record: pb.GroupRecord) -> GroupInfo:
    """Return a stored group."""
    return GroupInfo(
        group_id=record.group_id,
        group_epoch=record.group_epoch,
        generation=record.generation,
        assignor=record.assignor,
        members={member.member_id: member_of(member) for member in record.members},
        cause=record.cause,
        rebalanced_ms=record.rebalanced_ms,
        emptied_ms=record.emptied_ms,
    )


def member_record(member: MemberInfo) -> pb.GroupMemberRecord:
    """Return a member as it is stored, and as a GroupChange carries it."""
    return pb.GroupMemberRecord(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        host=member.host,
        topics=member.topics,
        pattern=member.pattern,
        assignor=member.assignor,
        session_timeout_ms=member.session_timeout_ms,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        max_poll_interval_ms=member.max_poll_interval_ms,
        joined_ms=member.joined_ms,
        owned=_owned(member.owned),
        target=_target(member.target),
    )


def member_of(record: pb.GroupMemberRecord) -> MemberInfo:
    """Return a stored member."""
    return MemberInfo(
        member_id=record.member_id,
        instance_id=record.instance_id,
        client_id=record.client_id,
        host=record.host,
        topics=tuple(record.topics),
        pattern=record.pattern,
        assignor=record.assignor,
        session_timeout_ms=record.session_timeout_ms,
        rebalance_timeout_ms=record.rebalance_timeout_ms,
        max_poll_interval_ms=record.max_poll_interval_ms,
        joined_ms=record.joined_ms,
        owned={
            GroupPartition(share.topic_id, index): granted
            for share in record.owned
            for index, granted in zip(share.partitions, share.granted_generations, strict=True)
        },
        target=frozenset(
            GroupPartition(share.topic_id, index) for share in record.target for index in share.partitions
        ),
    )


def _owned(owned: Mapping[GroupPartition, int]) -> Iterator[pb.GroupShareRecord]:
    by_topic: dict[bytes, list[tuple[int, int]]] = {}
    for (topic_id, index), granted in owned.items():
        by_topic.setdefault(topic_id, []).append((index, granted))
    for topic_id in sorted(by_topic):
        indexes, generations = zip(*sorted(by_topic[topic_id]), strict=True)
        yield pb.GroupShareRecord(topic_id=topic_id, partitions=indexes, granted_generations=generations)


def _target(target: Iterable[GroupPartition]) -> Iterator[pb.GroupShareRecord]:
    by_topic: dict[bytes, list[int]] = {}
    for topic_id, index in target:
        by_topic.setdefault(topic_id, []).append(index)
    for topic_id in sorted(by_topic):
        yield pb.GroupShareRecord(topic_id=topic_id, partitions=sorted(by_topic[topic_id]))
