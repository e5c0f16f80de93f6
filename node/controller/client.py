"""The way to the controller from any node: the local one by a plain call, another's by gRPC to its peer listener.

Owns: finding the present controller, and what may be repeated. A call is sent again only when it certainly had no
effect (NO_CONTROLLER, or no connection was there to send it on), or when doing it twice is harmless; else its fate is
told as OUTCOME_UNKNOWN. Every call ends by its deadline.
"""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import controller_pb2_grpc as services
from penstock.internal.v1 import metadata_pb2
from penstock.node.controller.service import ControllerCalls
from penstock.protocol.calls import from_call
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Outcome, Reason
from penstock.v1 import topic_service_pb2 as v1

RETRY_S = 0.02
"""Between two attempts, unless another controller is heard of before."""
CONNECT_S = 0.5
"""Wait for a connection before the leader is asked for again."""

Response = TypeVar("Response", bound=Message)


class _Call(NamedTuple):
    """One of the service's methods and how to treat it."""

    method: str  # of ControllerCalls
    rpc: str  # of the stub
    repeatable: bool  # twice is harmless: compare-and-set, or the same effect


@dataclass(slots=True)
class _Attempt:
    """A call on its way to one node."""

    call: _Call
    request: Message
    sent: bool = False


_REGISTER = _Call("register", "Register", repeatable=True)
_HEARTBEAT = _Call("heartbeat", "Heartbeat", repeatable=True)
_LEAVE = _Call("leave", "Leave", repeatable=True)
_REPORT = _Call("report_unreachable", "ReportUnreachable", repeatable=True)
_ALTER_PARTITIONS = _Call("alter_partitions", "AlterPartitions", repeatable=True)
_REASSIGN = _Call("reassign_partitions", "ReassignPartitions", repeatable=False)
_PRODUCER_IDS = _Call("allocate_producer_ids", "AllocateProducerIds", repeatable=True)
_ALTER_GROUPS = _Call("alter_groups", "AlterGroups", repeatable=True)
_ENSURE = _Call("ensure_internal_topic", "EnsureInternalTopic", repeatable=True)
_CREATE = _Call("create_topic", "CreateTopic", repeatable=True)  # by its request_id
_ALTER = _Call("alter_topic", "AlterTopic", repeatable=False)
_ADD = _Call("add_partitions", "AddPartitions", repeatable=False)
_DELETE = _Call("delete_topic", "DeleteTopic", repeatable=False)


class ControllerClient:
    """Loop thread only. Every method raises PenstockError; times are seconds.

    `leader`: the node that leads consensus, as this node knows. `channel_to`: to a node's peer listener. Add
    `on_leadership` to the callbacks of the RaftNode, so that calls move on when the controller does.
    """

    def __init__(
        self,
        node_id: int,
        local: ControllerCalls,
        leader: Callable[[], int | None],
        channel_to: Callable[[int], Awaitable[grpc.aio.Channel | None]],
        new_id: Callable[[], str] = lambda: f"internal-{uuid.uuid4()}",
    ) -> None:
        """`new_id`: a request_id that was never used."""
        self._node_id = node_id
        self._local = local
        self._leader = leader
        self._channel_to = channel_to
        self._new_id = new_id
        self._moved = asyncio.Event()

    def on_leadership(self, leader: int | None, term: int) -> None:
        """Another node leads consensus, or none."""
        del leader, term
        self._moved.set()
        self._moved = asyncio.Event()

    # ---- topics

    async def create_topic(self, request: v1.CreateTopicRequest, timeout_s: float) -> v1.CreateTopicResponse:
        """Create a topic. A request without a request_id gets one here, so that it may be sent again."""
        if not request.request_id:
            named = v1.CreateTopicRequest()
            named.CopyFrom(request)
            named.request_id = self._new_id()
            request = named
        response = await self._until(_CREATE, pb.CreateTopicRequest(request=request), pb.CreateTopicResponse, timeout_s)
        return response.response

    async def alter_topic(self, request: v1.AlterTopicRequest, timeout_s: float) -> v1.AlterTopicResponse:
        """Change settings of a topic."""
        call = _ALTER._replace(repeatable=request.validate_only)
        response = await self._until(call, pb.AlterTopicRequest(request=request), pb.AlterTopicResponse, timeout_s)
        return response.response

    async def add_partitions(self, request: v1.AddPartitionsRequest, timeout_s: float) -> v1.AddPartitionsResponse:
        """Add partitions to a topic."""
        call = _ADD._replace(repeatable=request.validate_only)
        wrapped = pb.AddPartitionsRequest(request=request)
        response = await self._until(call, wrapped, pb.AddPartitionsResponse, timeout_s)
        return response.response

    async def delete_topic(self, request: v1.DeleteTopicRequest, timeout_s: float) -> v1.DeleteTopicResponse:
        """Delete a topic."""
        call = _DELETE._replace(repeatable=request.validate_only)
        response = await self._until(call, pb.DeleteTopicRequest(request=request), pb.DeleteTopicResponse, timeout_s)
        return response.response

    # ---- groups

    async def alter_groups(self, request: pb.AlterGroupsRequest, timeout_s: float) -> pb.AlterGroupsResponse:
        """Change groups that this node coordinates; each change has its own result.

        It may have been sent twice. So STALE says that the group is another one than it was decided on, be it by this
        very change: look at the image of `metadata_version`, which has that, and decide again.
        """
        return await self._until(_ALTER_GROUPS, request, pb.AlterGroupsResponse, timeout_s)

    async def ensure_internal_topic(self, name: str, timeout_s: float) -> pb.EnsureInternalTopicResponse:
        """Create an internal topic where it is not there yet; the answer has its id, and the version that shows it."""
        request = pb.EnsureInternalTopicRequest(name=name)
        return await self._until(_ENSURE, request, pb.EnsureInternalTopicResponse, timeout_s)

    # ---- replication and producers

    async def alter_partitions(
        self, request: pb.AlterPartitionsRequest, timeout_s: float
    ) -> pb.AlterPartitionsResponse:
        """Change ISRs and give up leaderships, many at once; each has its own result. OUTCOME_UNKNOWN: see rule 5."""
        return await self._until(_ALTER_PARTITIONS, request, pb.AlterPartitionsResponse, timeout_s)

    async def reassign_partitions(
        self, request: pb.ReassignPartitionsRequest, timeout_s: float
    ) -> pb.ReassignPartitionsResponse:
        """Move partitions to other nodes, or turn that back; each has its own result. The metadata shows the progress.

        Not repeated after OUTCOME_UNKNOWN: what somebody else asked for since would be undone.
        """
        return await self._until(_REASSIGN, request, pb.ReassignPartitionsResponse, timeout_s)

    async def allocate_producer_ids(self, count: int, timeout_s: float) -> range:
        """Return a block of producer ids that nobody else gets. One whose answer was lost is never used."""
        request = pb.AllocateProducerIdsRequest(count=count)
        response = await self._until(_PRODUCER_IDS, request, pb.AllocateProducerIdsResponse, timeout_s)
        return range(response.first_producer_id, response.first_producer_id + response.count)

    async def report_unreachable(self, node_id: int, timeout_s: float) -> None:
        """Tell that a node's address refuses connections; the controller sees for itself."""
        request = pb.ReportUnreachableRequest(node_id=node_id)
        await self._until(_REPORT, request, pb.ReportUnreachableResponse, timeout_s)

    # ---- the session's: one attempt each, so that the session knows when what was answered was sent

    async def register(self, registration: metadata_pb2.Registration, timeout_s: float) -> pb.RegisterResponse:
        """Register this node. One attempt; OUTCOME_UNKNOWN may be followed by another."""
        request = pb.RegisterRequest(registration=registration)
        return await self._once(_REGISTER, request, pb.RegisterResponse, timeout_s)

    async def heartbeat(self, request: pb.HeartbeatRequest, timeout_s: float) -> pb.HeartbeatResponse:
        """Say that this node lives. One attempt."""
        return await self._once(_HEARTBEAT, request, pb.HeartbeatResponse, timeout_s)

    async def leave(self, node_id: int, node_epoch: int, timeout_s: float) -> None:
        """Say that this node serves no longer."""
        await self._until(_LEAVE, pb.LeaveRequest(node_id=node_id, node_epoch=node_epoch), pb.LeaveResponse, timeout_s)

    # ---- inside

    async def _until(self, call: _Call, request: Message, kind: type[Response], timeout_s: float) -> Response:
        """Try until there is an answer, the deadline has come, or the fate of an attempt is unknown and matters."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        for attempt in itertools.count():
            moved = self._moved
            try:
                return await self._once(call, request, kind, max(0.0, deadline - clock()))
            except PenstockError as error:
                if not _worth_repeating(error, call) or clock() + RETRY_S >= deadline:
                    raise
            await _wait(moved, min(RETRY_S * (attempt + 1), deadline - clock()))
        raise AssertionError  # count() does not end

    async def _once(self, call: _Call, request: Message, kind: type[Response], timeout_s: float) -> Response:
        leader = self._leader()
        if leader is None:
            raise _no_controller("no controller is known to this node")
        if leader == self._node_id:
            result = await self._local_call(call, request, timeout_s)
        else:
            result = await self._remote_call(call, request, leader, timeout_s)
        if not isinstance(result, kind):
            raise TypeError(f"{call.method} answered {type(result).__name__}")
        return result

    async def _local_call(self, call: _Call, request: Message, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await getattr(self._local, call.method)(request, timeout_s)
        except TimeoutError:
            raise _unknown(f"the controller did not finish {call.method} within {timeout_s:.1f} s") from None

    async def _remote_call(self, call: _Call, request: Message, leader: int, timeout_s: float) -> Any:
        """Ask another node. What was surely never sent is NO_CONTROLLER; what may have been, OUTCOME_UNKNOWN."""
        attempt = _Attempt(call, request)
        answer = asyncio.ensure_future(self._send(attempt, leader, timeout_s))
        moved = asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait({answer, moved}, return_when=asyncio.FIRST_COMPLETED)
            if attempt.sent and not call.repeatable:
                await asyncio.wait({answer})
        finally:  # a controller that hangs must not hold up what its successor can do
            moved.cancel()
            answer.cancel()
        if answer.done() and not answer.cancelled():
            return answer.result()
        if attempt.sent:
            raise _unknown(f"contact with the controller, node {leader}, was lost during {call.method}")
        raise _no_controller(f"node {leader} is the controller no more")

    async def _send(self, attempt: "_Attempt", leader: int, timeout_s: float) -> Any:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        channel = await self._channel_to(leader)
        if channel is None:
            raise _no_controller(f"the address of the controller, node {leader}, is not known")
        try:
            if channel.get_state() is not grpc.ChannelConnectivity.READY:
                async with asyncio.timeout(min(timeout_s, CONNECT_S)):
                    await channel.channel_ready()
        except TimeoutError:
            raise _no_controller(f"the controller, node {leader}, cannot be reached") from None
        method = getattr(services.ControllerServiceStub(channel), attempt.call.rpc)
        attempt.sent = True
        try:
            return await method(attempt.request, timeout=max(0.001, deadline - clock()))
        except grpc.RpcError as error:
            raise from_call(error) from error


def _worth_repeating(error: PenstockError, call: _Call) -> bool:
    if error.reason in {Reason.NO_CONTROLLER, Reason.OVERLOADED}:
        return True
    return error.outcome is Outcome.UNKNOWN and error.reason is not Reason.INTERNAL and call.repeatable


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


def _no_controller(text: str) -> PenstockError:
    return PenstockError(Reason.NO_CONTROLLER, text)


def _unknown(text: str) -> PenstockError:
    return PenstockError(Reason.OUTCOME_UNKNOWN, text)
