"""Consumer groups, from messages to descriptions."""

from penstock.client.errors import error_of
from penstock.client.group.options import ASSIGNORS
from penstock.client.group_descriptions import (
    GroupDescription,
    GroupEvent,
    GroupPartitionDescription,
    GroupRebalanced,
    GroupSummary,
    MemberDescription,
    MemberPartitionDescription,
    MemberShare,
    OffsetReset,
    OffsetsCommitted,
    ResetPoint,
    Shift,
)
from penstock.client.records import CommittedOffset, Timestamp
from penstock.v1 import group_service_pb2 as pb

STATES = {
    "empty": pb.GROUP_STATE_EMPTY,
    "rebalancing": pb.GROUP_STATE_REBALANCING,
    "stable": pb.GROUP_STATE_STABLE,
}
_STATE_NAMES = {int(number): name for name, number in STATES.items()}
_ASSIGNOR_NAMES = {int(number): name for name, number in ASSIGNORS.items()}


def set_point(request: pb.ResetOffsetsRequest, to: ResetPoint) -> None:
    """Write where to go on into the request."""
    if isinstance(to, Timestamp):
        request.timestamp_ms = to.ms
    elif isinstance(to, Shift):
        request.shift = to.offsets
    elif to == "earliest":
        request.earliest.SetInParent()
    elif to == "latest":
        request.latest.SetInParent()
    else:
        request.offset = to


def summary_of(group: pb.GroupSummary) -> GroupSummary:
    """A group of a list."""
    return GroupSummary(
        group_id=group.group_id,
        state=_STATE_NAMES.get(group.state, str(group.state)),
        generation=group.generation,
        assignor=_assignor(group.assignor),
        members=group.members,
        coordinator=group.coordinator if group.HasField("coordinator") else None,
    )


def description_of(answer: pb.DescribeGroupResponse) -> GroupDescription:
    """A group with its members and partitions."""
    group = summary_of(answer.group)
    return GroupDescription(
        group_id=group.group_id,
        state=group.state,
        generation=group.generation,
        assignor=group.assignor,
        coordinator=group.coordinator,
        members=tuple(map(_member, answer.members)),
        partitions=tuple(map(_partition, answer.partitions)),
        last_rebalance_cause=answer.last_rebalance_cause,
        last_rebalance_ms=answer.last_rebalance_ms or None,
    )


def committed_of(committed: pb.CommittedOffset) -> CommittedOffset:
    """A committed offset."""
    return CommittedOffset(
        committed.offset,
        committed.leader_epoch if committed.HasField("leader_epoch") else None,
        committed.metadata,
        committed.commit_time_ms,
        committed.member_id,
        committed.generation,
    )


def event_of(event: pb.GroupEvent) -> GroupEvent | None:
    """An event of a group's history; None: of a kind that this version does not know."""
    kind = event.WhichOneof("event")
    if kind == "committed":
        return _commit(event.time_ms, event.committed)
    if kind == "rebalanced":
        rebalanced = event.rebalanced
        members = tuple(MemberShare(one.member_id, one.client_id, one.partitions) for one in rebalanced.members)
        return GroupRebalanced(event.time_ms, rebalanced.generation, rebalanced.cause, members)
    return None


def reset_of(reset: pb.OffsetReset) -> OffsetReset:
    """What became of a partition."""
    error = error_of(reset.error) if reset.HasField("error") else None
    return OffsetReset(
        reset.topic_id,
        reset.topic,
        reset.partition,
        reset.previous_offset if reset.HasField("previous_offset") else None,
        reset.offset if error is None else None,
        error,
    )


def _assignor(number: int) -> str | None:
    return None if number == pb.ASSIGNOR_UNSPECIFIED else _ASSIGNOR_NAMES.get(number, str(number))


def _member(member: pb.GroupMember) -> MemberDescription:
    return MemberDescription(
        member_id=member.member_id,
        instance_id=member.instance_id or None,
        client_id=member.client_id,
        host=member.host,
        topics=tuple(member.subscription.topics),
        pattern=member.subscription.pattern or None,
        joined_ms=member.joined_ms,
        partitions=tuple(
            MemberPartitionDescription(one.topic_id, one.topic, one.partition, one.owned, one.revoked)
            for one in member.partitions
        ),
        session_timeout_ms=member.session_timeout.ToMilliseconds(),
        rebalance_timeout_ms=member.rebalance_timeout.ToMilliseconds(),
        max_poll_interval_ms=(
            member.max_poll_interval.ToMilliseconds() if member.HasField("max_poll_interval") else None
        ),
        assignor=_assignor(member.assignor) if member.HasField("assignor") else None,
    )


def _partition(one: pb.GroupPartition) -> GroupPartitionDescription:
    return GroupPartitionDescription(
        topic_id=one.topic_id,
        topic=one.topic,
        partition=one.partition,
        member_id=one.member_id or None,
        committed=committed_of(one.committed) if one.HasField("committed") else None,
        log_start_offset=one.log_start_offset if one.HasField("log_start_offset") else None,
        log_end_offset=one.log_end_offset if one.HasField("log_end_offset") else None,
        lag=one.lag if one.HasField("lag") else None,
        lag_time_ms=one.lag_time.ToMilliseconds() if one.HasField("lag_time") else None,
        error=error_of(one.error) if one.HasField("error") else None,
    )


def _commit(time_ms: int, commit: pb.OffsetsCommitted) -> OffsetsCommitted:
    return OffsetsCommitted(
        time_ms=time_ms,
        topic_id=commit.topic_id,
        topic=commit.topic or None,
        partition=commit.partition,
        offset=commit.offset,
        metadata=commit.metadata,
        member_id=commit.member_id or None,
        client_id=commit.client_id,
        generation=commit.generation,
        removed=commit.removed,
    )
