"""GroupService: membership streams at the coordinator, offsets and the operators' calls on any node.

Owns nothing but the handlers. On the peer listener it answers what other nodes pass on.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import unquote

import grpc

from penstock.node.api.group_forward import RETRY_S, CoordinatorCalls, Rpc
from penstock.node.api.group_history import history
from penstock.node.api.group_lag import add_lag
from penstock.node.api.group_messages import in_order, member_message, partition_rows, summary
from penstock.node.api.group_reset import reset
from penstock.node.api.leader_offsets import LeaderOffsets
from penstock.node.api.paging import page
from penstock.node.api.reader import MetadataReader
from penstock.node.api.status import Context
from penstock.node.clock import loop_s, wall_ms
from penstock.node.group.commit_form import unknown_group
from penstock.node.group.coordinator import Coordinator
from penstock.node.group.coordinators import Coordinators
from penstock.node.group.describing import group_state
from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_GROUP_OFFSETS
from penstock.protocol.reasons import Reason
from penstock.raft.image import OFFSETS_TOPIC, GroupInfo, GroupPartition, MetadataImage
from penstock.v1 import group_service_pb2 as pb
from penstock.v1.group_service_pb2 import DESCRIPTOR

SERVICE = "penstock.v1.GroupService"
FIND_TIMEOUT_S = 10.0
LAG_SHARE = 0.5
"""Of a call's time, for each of the two rounds of questions to the leaders."""
LAG_TIMEOUT_S = 3.0
_COMMIT = Rpc("CommitOffsets", repeatable=False, creates=True)
_FETCH = Rpc("FetchOffsets", repeatable=True)
_DESCRIBE = Rpc("DescribeGroup", repeatable=True)
_HISTORY = Rpc("ListGroupHistory", repeatable=True)
_RESET = Rpc("ResetOffsets", repeatable=False)
_DELETE = Rpc("DeleteGroup", repeatable=False)
_UNARY = tuple(name for name in DESCRIPTOR.services_by_name["GroupService"].methods_by_name if name != "Join")


class GroupService:
    """Handlers of the service."""

    def __init__(
        self, coordinators: Coordinators, calls: CoordinatorCalls, reader: MetadataReader, leaders: LeaderOffsets
    ) -> None:
        self._coordinators = coordinators
        self._calls = calls
        self._reader = reader
        self._leaders = leaders

    @property
    def _image(self) -> MetadataImage:
        return self._reader.view.image

    # ---- membership: at the coordinator only

    async def join(self, request_iterator: Any, context: Context) -> None:
        """Serve a member until it goes, or is removed, or another node coordinates the group."""
        del request_iterator
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        if first.WhichOneof("request") != "start":
            raise PenstockError(Reason.INVALID_ARGUMENT, "the first request of a Join stream must be start")
        await self._coordinators.ensure(first.start.group_id, FIND_TIMEOUT_S)
        coordinator = self._coordinators.find(first.start.group_id)
        await coordinator.members.join(_requests(first, context), context.write, _host(context))

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for the client listener; Join's responses are serialized already."""
        join: Any = grpc.stream_stream_rpc_method_handler(self.join, pb.JoinRequest.FromString, None)
        return grpc.method_handlers_generic_handler(SERVICE, {"Join": join, **self._unary(_UNARY)})

    def peer_handler(self) -> grpc.GenericRpcHandler:
        """What other nodes pass on."""
        passed_on = (_COMMIT, _FETCH, _DESCRIBE, _HISTORY, _RESET, _DELETE)
        return grpc.method_handlers_generic_handler(SERVICE, self._unary(tuple(rpc.name for rpc in passed_on)))

    def _unary(self, names: Sequence[str]) -> dict[str, Any]:
        service = DESCRIPTOR.services_by_name["GroupService"]
        methods = [(name, service.methods_by_name[name]) for name in names]
        return {
            name: grpc.unary_unary_rpc_method_handler(
                getattr(self, name),
                getattr(pb, method.input_type.name).FromString,
                getattr(pb, method.output_type.name).SerializeToString,
            )
            for name, method in methods
        }

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:  # noqa: N802
        """Note that a member lives."""
        del context
        self._coordinators.find(request.group_id).members.heartbeat(request)
        return pb.HeartbeatResponse()

    async def FindCoordinator(  # noqa: N802
        self, request: pb.FindCoordinatorRequest, context: Context
    ) -> pb.FindCoordinatorResponse:
        """Say where the group's coordinator is, as soon as there is one."""
        deadline = loop_s() + min(FIND_TIMEOUT_S, 0.9 * (context.time_remaining() or FIND_TIMEOUT_S))
        await self._coordinators.ensure(request.group_id, deadline - loop_s())
        while True:
            place, image = self._coordinators.place(request.group_id), self._image
            node = image.nodes.get(place.leader)
            if node is not None:
                return pb.FindCoordinatorResponse(
                    node_id=place.leader,
                    host=node.client_address.host,
                    port=node.client_address.port,
                    offsets_partition=place.partition,
                    leader_epoch=place.leader_epoch,
                )
            if loop_s() + RETRY_S >= deadline:
                text = f"partition {place.partition} of {OFFSETS_TOPIC} has no leader now"
                raise PenstockError(Reason.LEADER_NOT_AVAILABLE, text)
            await asyncio.sleep(RETRY_S)

    # ---- offsets

    async def CommitOffsets(self, request: pb.CommitOffsetsRequest, context: Context) -> pb.CommitOffsetsResponse:  # noqa: N802
        """Commit; answered when it is durable on every in-sync replica."""
        return await self._calls.answer(_COMMIT, request, context, lambda at, _: at.commit_alone(request))

    async def FetchOffsets(self, request: pb.FetchOffsetsRequest, context: Context) -> pb.FetchOffsetsResponse:  # noqa: N802
        """What is committed."""
        if len(request.partitions) > MAX_GROUP_OFFSETS:
            text = f"{len(request.partitions)} partitions in one request, the limit is {MAX_GROUP_OFFSETS}"
            raise PenstockError(Reason.INVALID_ARGUMENT, text)
        return await self._calls.answer(_FETCH, request, context, lambda at, _: self._fetch(request, at))

    async def _fetch(self, request: pb.FetchOffsetsRequest, coordinator: Coordinator) -> pb.FetchOffsetsResponse:
        self._group(request.group_id)
        asked = {GroupPartition(item.topic_id, item.partition) for item in request.partitions}
        offsets, topics = coordinator.offsets(request.group_id, asked or None), self._image.topics
        return pb.FetchOffsetsResponse(
            offsets=[
                pb.GroupOffset(
                    topic_id=partition.topic_id,
                    topic=topics[partition.topic_id].name,
                    partition=partition.partition,
                    committed=offsets[partition],
                )
                for partition in in_order(offsets, topics)
            ]
        )

    # ---- operators

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Context) -> pb.ListGroupsResponse:  # noqa: N802
        """List groups by id, from the metadata."""
        image = await self._reader.at_least(request.min_metadata_version, context)
        _check_states(request.states)
        wanted = set(request.states)
        ids = sorted(group_id for group_id, group in image.groups.items() if not wanted or group_state(group) in wanted)
        shown, token = page(ids, request.page_size, request.page_token)
        groups = [summary(image.groups[group_id], image) for group_id in shown]
        return pb.ListGroupsResponse(groups=groups, next_page_token=token, metadata_version=image.version)

    async def DescribeGroup(self, request: pb.DescribeGroupRequest, context: Context) -> pb.DescribeGroupResponse:  # noqa: N802
        """Describe a group: members, partitions, offsets, lag."""
        return await self._calls.answer(_DESCRIBE, request, context, lambda at, left: self._describe(request, at, left))

    async def _describe(
        self, request: pb.DescribeGroupRequest, coordinator: Coordinator, left_s: float
    ) -> pb.DescribeGroupResponse:
        group, image = self._group(request.group_id), self._image
        rows = partition_rows(group, coordinator.offsets(group.group_id), image.topics)
        if request.include_lag:
            await add_lag(rows, self._leaders, wall_ms(), min(LAG_TIMEOUT_S, LAG_SHARE * left_s))
        return pb.DescribeGroupResponse(
            group=summary(group, image),
            members=[member_message(group.members[member_id], image.topics) for member_id in sorted(group.members)],
            partitions=rows,
            last_rebalance_cause=group.cause,
            last_rebalance_ms=group.rebalanced_ms,
        )

    async def ListGroupHistory(  # noqa: N802
        self, request: pb.ListGroupHistoryRequest, context: Context
    ) -> pb.ListGroupHistoryResponse:
        """Who committed what and when, and each rebalance."""
        return await self._calls.answer(_HISTORY, request, context, lambda at, _: self._history(request, at))

    async def _history(
        self, request: pb.ListGroupHistoryRequest, coordinator: Coordinator
    ) -> pb.ListGroupHistoryResponse:
        self._group(request.group_id)
        return await history(request, coordinator.partition, self._image.topics)

    async def ResetOffsets(self, request: pb.ResetOffsetsRequest, context: Context) -> pb.ResetOffsetsResponse:  # noqa: N802
        """Move the offsets of a group without members."""
        rpc = _RESET._replace(repeatable=request.validate_only)
        return await self._calls.answer(rpc, request, context, lambda at, left: self._reset(request, at, left))

    async def _reset(
        self, request: pb.ResetOffsetsRequest, coordinator: Coordinator, left_s: float
    ) -> pb.ResetOffsetsResponse:
        self._group(request.group_id)
        timeout_s = min(LAG_TIMEOUT_S, LAG_SHARE * left_s)
        return await reset(request, coordinator, self._image, self._leaders, timeout_s)

    async def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Context) -> pb.DeleteGroupResponse:  # noqa: N802
        """Delete a group without members, and its offsets."""
        rpc = _DELETE._replace(repeatable=request.validate_only)
        response = await self._calls.answer(rpc, request, context, lambda at, _: self._delete(request, at))
        await self._reader.shows(response.metadata_version, context)
        return response

    async def _delete(self, request: pb.DeleteGroupRequest, coordinator: Coordinator) -> pb.DeleteGroupResponse:
        self._group(request.group_id)
        version = await coordinator.delete(request.group_id, validate_only=request.validate_only)
        return pb.DeleteGroupResponse(metadata_version=version)

    def _group(self, group_id: str) -> GroupInfo:
        """What the coordinator knows of the group. Raises UNKNOWN_GROUP."""
        group = self._image.groups.get(group_id)
        if group is None:
            raise unknown_group(group_id)
        return group


def _check_states(states: Sequence[int]) -> None:
    known = {pb.GROUP_STATE_EMPTY, pb.GROUP_STATE_REBALANCING, pb.GROUP_STATE_STABLE}
    for state in states:
        if state not in known:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"state {state} is not one of EMPTY, REBALANCING, STABLE")


async def _requests(first: pb.JoinRequest, context: Context) -> AsyncIterator[pb.JoinRequest]:
    """What a member sends, until it half-closes."""
    yield first
    while (request := await context.read()) is not grpc.aio.EOF:
        yield request


def _host(context: Context) -> str:
    """Where a member is, as the connection shows it: ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000."""
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
