"""The part of the admin client that looks at consumer groups and changes them. Any broker answers for any group."""

from collections.abc import Iterable, Mapping

from penstock.client import group_messages as messages
from penstock.client.admin_calls import PAGE_SIZE, AdminCalls
from penstock.client.checks import MAX_OFFSET, commit_point
from penstock.client.errors import InvalidRequestError, error_of
from penstock.client.group_descriptions import (
    AlteredOffset,
    GroupDescription,
    GroupEvent,
    GroupLag,
    GroupState,
    GroupSummary,
    OffsetReset,
    ResetPoint,
    Shift,
)
from penstock.client.records import CommitPoint, CommittedOffset, TopicPartition
from penstock.protocol.reasons import Reason
from penstock.v1 import common_pb2
from penstock.v1 import group_service_pb2 as pb

_MAX_PARTITION = (1 << 32) - 1


class GroupAdmin(AdminCalls):
    """Groups: listed, described, reset, deleted. All raise UnknownGroupError where the group does not exist."""

    async def list_groups(self, states: Iterable[GroupState] | None = None) -> list[GroupSummary]:
        """Give all groups, or those in one of `states`, by id."""
        groups: list[GroupSummary] = []
        token = ""
        wanted = None if states is None else [_state(state) for state in states]
        if wanted == []:  # none named would mean all
            return groups
        while True:
            answer = await self._read(
                lambda c: c.groups.ListGroups,
                pb.ListGroupsRequest(
                    page_size=PAGE_SIZE, page_token=token, states=wanted, min_metadata_version=self._version
                ),
                pb.ListGroupsResponse,
            )
            groups += map(messages.summary_of, answer.groups)
            token = answer.next_page_token
            if not token:
                return groups

    async def describe_group(self, group_id: str, *, lag: bool = True) -> GroupDescription:
        """Give a group's members and partitions. `lag`: ask the partitions' leaders for their ends, too.

        A partition whose leader does not answer has an error and no lag.
        """
        answer = await self._read(
            lambda c: c.groups.DescribeGroup,
            pb.DescribeGroupRequest(group_id=group_id, include_lag=lag),
            pb.DescribeGroupResponse,
        )
        return messages.description_of(answer)

    async def group_lag(self, group_id: str) -> GroupLag:
        """Say how far a group is behind, in offsets and in time; of a group without members, too."""
        return (await self.describe_group(group_id)).lag

    async def group_history(self, group_id: str, limit: int = 100) -> list[GroupEvent]:
        """Give the latest `limit` commits and rebalances that __offsets still has, the oldest of them first."""
        if limit < 1:
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"limit must be 1 or more, not {limit}")
        events: list[GroupEvent] = []
        token = ""
        while True:
            answer = await self._read(
                lambda c: c.groups.ListGroupHistory,
                pb.ListGroupHistoryRequest(
                    group_id=group_id, page_size=min(limit - len(events), PAGE_SIZE), page_token=token
                ),
                pb.ListGroupHistoryResponse,
            )
            page = [event for event in map(messages.event_of, answer.events) if event is not None]
            events = [*page, *events]
            token = answer.next_page_token
            if not token or len(events) >= limit:
                return events[-limit:]

    async def group_offsets(
        self, group_id: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset]:
        """Give the committed offsets of a group: all, or of `partitions`; one without is left out."""
        chosen = None if partitions is None else await self._partitions(partitions)
        if chosen == []:  # none named would mean all
            return {}
        answer = await self._read(
            lambda c: c.groups.FetchOffsets,
            pb.FetchOffsetsRequest(group_id=group_id, partitions=chosen),
            pb.FetchOffsetsResponse,
        )
        return {
            TopicPartition(one.topic, one.partition): messages.committed_of(one.committed) for one in answer.offsets
        }

    async def alter_offsets(
        self, group_id: str, offsets: Mapping[TopicPartition, int | CommitPoint]
    ) -> list[AlteredOffset]:
        """Commit offsets for a group without members, making it where there is none; what became of each, in order.

        A GroupNotEmptyError in each result while it has members. Harmless to repeat.
        """
        points = [commit_point(at) for at in offsets.values()]
        partitions = await self._partitions(offsets)
        if not partitions:
            return []
        request = pb.CommitOffsetsRequest(group_id=group_id)
        for where, point in zip(partitions, points, strict=True):
            request.offsets.add(
                topic_id=where.topic_id,
                partition=where.partition,
                offset=point.offset,
                leader_epoch=point.leader_epoch,
                metadata=point.metadata,
            )
        answer = await self._change(
            lambda c: c.groups.CommitOffsets, request, pb.CommitOffsetsResponse, repeatable=True
        )
        return [
            AlteredOffset(*partition, point.offset, error_of(result.error) if result.HasField("error") else None)
            for partition, point, result in zip(offsets, points, answer.results, strict=True)
        ]

    async def reset_offsets(
        self,
        group_id: str,
        to: ResetPoint,
        *,
        topics: Iterable[str] | None = None,
        partitions: Iterable[TopicPartition] | None = None,
        validate_only: bool = False,
    ) -> list[OffsetReset]:
        """Let a group without members go on elsewhere; what became of each partition, by topic and partition.

        Of all partitions of `topics`, and of `partitions`; where neither is given, of all that have a committed offset.
        `validate_only`: only say what would become of them. Raises GroupNotEmptyError; OutcomeUnknownError where the
        answer was lost to a Shift, which is not harmless to repeat as the others are.
        """
        _check_point(to)
        names = None if topics is None else list(topics)
        chosen = None if partitions is None else await self._partitions(partitions)
        if not names and not chosen and (names is not None or chosen is not None):  # none named would mean all
            return []
        request = pb.ResetOffsetsRequest(
            group_id=group_id, topics=names, partitions=chosen, validate_only=validate_only
        )
        messages.set_point(request, to)
        answer = await self._change(
            lambda c: c.groups.ResetOffsets,
            request,
            pb.ResetOffsetsResponse,
            repeatable=validate_only or not isinstance(to, Shift),
        )
        return [messages.reset_of(reset) for reset in answer.resets]

    async def delete_group(self, group_id: str, *, validate_only: bool = False) -> None:
        """Delete a group without members, and its offsets. Raises GroupNotEmptyError.

        OutcomeUnknownError where the answer was lost.
        """
        await self._change(
            lambda c: c.groups.DeleteGroup,
            pb.DeleteGroupRequest(group_id=group_id, validate_only=validate_only),
            pb.DeleteGroupResponse,
            repeatable=validate_only,
        )

    async def _partitions(self, partitions: Iterable[TopicPartition]) -> list[common_pb2.TopicPartition]:
        """In order, by id. Raises UnknownTopicError."""
        wanted = [TopicPartition(*one) for one in partitions]
        if outside := [one for one in wanted if not 0 <= one.partition <= _MAX_PARTITION]:
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"there is no partition {outside[0].partition}")
        ids = await self._topic_ids(one.topic for one in wanted)
        return [common_pb2.TopicPartition(topic_id=ids[one.topic], partition=one.partition) for one in wanted]


def _check_point(to: ResetPoint) -> None:
    """Refuse what no message can carry."""
    if isinstance(to, int) and not 0 <= to <= MAX_OFFSET:
        raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"an offset is 0 or more, and below 2**63; not {to}")
    if isinstance(to, tuple) and not -MAX_OFFSET <= to[0] <= MAX_OFFSET:
        raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"{to} is outside 64 bits")


def _state(state: GroupState) -> "pb.GroupState.ValueType":
    try:
        return messages.STATES[state]
    except KeyError:
        text = f"{state!r} is no state of a group; there are {', '.join(messages.STATES)}"
        raise InvalidRequestError(Reason.INVALID_ARGUMENT, text) from None
