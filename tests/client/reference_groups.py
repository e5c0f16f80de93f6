"""Consumer groups of the reference cluster: what they are is put there by the test, and any broker answers for all."""

import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from grpc_status import rpc_status

from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb
from penstock.v1 import group_service_pb2_grpc


@dataclass
class Groups:
    """The state that all brokers share."""

    cluster: Any
    described: dict[str, pb.DescribeGroupResponse] = field(default_factory=dict)
    """By group id: members, and partitions with committed offsets."""
    events: dict[str, list[pb.GroupEvent]] = field(default_factory=dict)
    faults: deque[Reason] = field(default_factory=deque)
    """Taken one a call: it is answered so, after it was done where the outcome is unknown."""
    unreachable: set[tuple[str, int]] = field(default_factory=set)
    """Partitions whose leader does not tell the coordinator its end."""

    def create(
        self, group_id: str, state: "pb.GroupState.ValueType" = pb.GROUP_STATE_EMPTY
    ) -> pb.DescribeGroupResponse:
        group = self.described[group_id] = pb.DescribeGroupResponse()
        group.group.group_id, group.group.state, group.group.coordinator = group_id, state, 1
        return group

    def join(self, group_id: str, member_id: str, **fields: Any) -> pb.GroupMember:
        group = self.described[group_id]
        group.members.append(pb.GroupMember(member_id=member_id, **fields))
        group.group.members, group.group.state = len(group.members), pb.GROUP_STATE_STABLE
        return group.members[-1]

    def commit(self, group_id: str, topic: str, partition: int, offset: int, metadata: str = "") -> pb.GroupPartition:
        one = self.partition(group_id, topic, partition)
        one.committed.offset, one.committed.metadata = offset, metadata
        one.committed.commit_time_ms = time.time_ns() // 1_000_000
        return one

    def partition(self, group_id: str, topic: str, partition: int) -> pb.GroupPartition:
        """A partition of the group, put there where it is missing."""
        group = self.described[group_id]
        for one in group.partitions:
            if (one.topic, one.partition) == (topic, partition):
                return one
        topic_id = self.cluster.topics[topic].topic_id
        group.partitions.append(pb.GroupPartition(topic_id=topic_id, topic=topic, partition=partition))
        group.partitions.sort(key=lambda one: (one.topic, one.partition))
        return self.partition(group_id, topic, partition)

    def find(self, group_id: str) -> pb.DescribeGroupResponse:
        if not group_id:
            raise PenstockError(Reason.INVALID_GROUP_ID, "the group id is empty")
        if group_id not in self.described:
            raise PenstockError(Reason.UNKNOWN_GROUP, f"no group {group_id!r}")
        return self.described[group_id]

    def find_empty(self, group_id: str) -> pb.DescribeGroupResponse:
        group = self.find(group_id)
        if group.members:
            raise PenstockError(Reason.GROUP_NOT_EMPTY, f"group {group_id!r} has {len(group.members)} members")
        return group

    def name_of(self, topic_id: bytes) -> str:
        names = [topic.name for topic in self.cluster.topics.values() if topic.topic_id == topic_id]
        if not names:
            raise PenstockError(Reason.UNKNOWN_TOPIC, "no topic has this id")
        return str(names[0])


def refuse(reason: Reason, message: str) -> None:
    raise PenstockError(reason, message)


class GroupApi(group_service_pb2_grpc.GroupServiceServicer):
    def __init__(self, groups: Groups) -> None:
        self.groups = groups

    async def ListGroups(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._list, request, context)

    async def DescribeGroup(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._describe, request, context)

    async def ListGroupHistory(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._history, request, context)

    async def FetchOffsets(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._fetch, request, context)

    async def CommitOffsets(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._commit, request, context)

    async def ResetOffsets(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._reset, request, context)

    async def DeleteGroup(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._delete, request, context)

    async def FindCoordinator(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._no_members, request, context)

    async def Heartbeat(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(self._no_members, request, context)

    async def Join(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        yield await self._answer(self._no_members, None, context)

    async def _answer(self, act: Any, request: Any, context: Any) -> Any:
        try:
            self._fail_now(done=False)
            answer = act(request)
            self._fail_now(done=True)
        except PenstockError as error:
            await context.abort_with_status(rpc_status.to_status(to_status(error)))
        return answer

    def _fail_now(self, *, done: bool) -> None:
        faults = self.groups.faults
        if faults and (faults[0] is Reason.OUTCOME_UNKNOWN) is done:
            refuse(faults.popleft(), "injected")

    def _no_members(self, request: Any) -> Any:
        refuse(Reason.UNSUPPORTED, "the reference cluster's groups have no living members")

    def _list(self, request: Any) -> Any:
        found = [one.group for _, one in sorted(self.groups.described.items())]
        found = [group for group in found if not request.states or group.state in request.states]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        token = str(end) if end < len(found) else ""
        return pb.ListGroupsResponse(groups=found[start:end], next_page_token=token)

    def _describe(self, request: Any) -> Any:
        answer = pb.DescribeGroupResponse()
        answer.CopyFrom(self.groups.find(request.group_id))
        for one in answer.partitions if request.include_lag else ():
            if (one.topic, one.partition) in self.groups.unreachable:
                text = f"leader of {one.topic} {one.partition} does not answer"
                one.error.CopyFrom(to_status(PenstockError(Reason.LEADER_NOT_AVAILABLE, text)))
                continue
            log = self.groups.cluster.log(one.topic, one.partition)
            one.log_start_offset, one.log_end_offset = log.log_start_offset, log.end
            if one.HasField("committed"):
                one.lag = log.end - max(one.committed.offset, log.log_start_offset)
                one.lag_time.FromMilliseconds(12_345 if one.lag else 0)
        return answer

    def _history(self, request: Any) -> Any:
        self.groups.find(request.group_id)
        events = self.groups.events.get(request.group_id, [])
        end = int(request.page_token or len(events))
        start = max(0, end - (request.page_size or 100))
        return pb.ListGroupHistoryResponse(events=events[start:end], next_page_token=str(start) if start else "")

    def _fetch(self, request: Any) -> Any:
        wanted = {(one.topic_id, one.partition) for one in request.partitions}
        return pb.FetchOffsetsResponse(
            offsets=[
                pb.GroupOffset(topic_id=p.topic_id, topic=p.topic, partition=p.partition, committed=p.committed)
                for p in self.groups.find(request.group_id).partitions
                if p.HasField("committed") and (not wanted or (p.topic_id, p.partition) in wanted)
            ]
        )

    def _commit(self, request: Any) -> Any:
        if request.group_id not in self.groups.described:
            self.groups.create(request.group_id)
        answer = pb.CommitOffsetsResponse()
        for one in request.offsets:
            result = answer.results.add()
            try:
                self.groups.find_empty(request.group_id)
                topic = self.groups.name_of(one.topic_id)
                if one.offset > self.groups.cluster.log(topic, one.partition).end:
                    refuse(Reason.OFFSET_ABOVE_END, f"{one.offset} is above the end")
                self.groups.commit(request.group_id, topic, one.partition, one.offset, one.metadata)
            except PenstockError as error:
                result.error.CopyFrom(to_status(error))
        return answer

    def _reset(self, request: Any) -> Any:
        group = self.groups.find_empty(request.group_id)
        chosen = {(self.groups.name_of(one.topic_id), one.partition) for one in request.partitions}
        for topic in request.topics:
            chosen |= {(topic, one.partition) for one in self.groups.cluster.topics[topic].partitions}
        if not request.partitions and not request.topics:
            chosen = {(one.topic, one.partition) for one in group.partitions if one.HasField("committed")}
        answer = pb.ResetOffsetsResponse()
        for topic, partition in sorted(chosen):
            self._reset_one(request, topic, partition, answer.resets.add(topic=topic, partition=partition))
        return answer

    def _reset_one(self, request: Any, topic: str, partition: int, reset: pb.OffsetReset) -> None:
        log = self.groups.cluster.log(topic, partition)
        reset.topic_id = log.topic_id
        committed = [
            one.committed.offset
            for one in self.groups.described[request.group_id].partitions
            if (one.topic, one.partition) == (topic, partition) and one.HasField("committed")
        ]
        if committed:
            reset.previous_offset = committed[0]
        kind = request.WhichOneof("to")
        former = committed[0] if committed else log.log_start_offset
        offset = {
            "earliest": log.log_start_offset,
            "latest": log.end,
            "offset": request.offset,
            "shift": min(log.end, max(log.log_start_offset, former + request.shift)),
            "timestamp_ms": log.log_start_offset + 1,
        }[kind]
        if offset > log.end:
            reset.error.CopyFrom(to_status(PenstockError(Reason.OFFSET_ABOVE_END, f"the log ends at {log.end}")))
            return
        reset.offset = offset
        if not request.validate_only:
            self.groups.commit(request.group_id, topic, partition, offset)

    def _delete(self, request: Any) -> Any:
        self.groups.find_empty(request.group_id)
        if not request.validate_only:
            del self.groups.described[request.group_id]
        return pb.DeleteGroupResponse(metadata_version=1)
