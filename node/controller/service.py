"""ControllerService on the peer listener: other nodes' calls to the controller of this node."""

from typing import Protocol

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import controller_pb2_grpc as services
from penstock.node.api.status import Context

DEFAULT_TIMEOUT_S = 30.0
"""Of a call that names no deadline."""


class ControllerCalls(Protocol):
    """What the controller answers. Each raises PenstockError; NO_CONTROLLER: nothing was done, ask another node."""

    async def register(self, request: pb.RegisterRequest, timeout_s: float) -> pb.RegisterResponse:
        """Register a node."""
        ...

    async def heartbeat(self, request: pb.HeartbeatRequest, timeout_s: float) -> pb.HeartbeatResponse:
        """Note that a node lives."""
        ...

    async def leave(self, request: pb.LeaveRequest, timeout_s: float) -> pb.LeaveResponse:
        """Fence a node that stops."""
        ...

    async def report_unreachable(
        self, request: pb.ReportUnreachableRequest, timeout_s: float
    ) -> pb.ReportUnreachableResponse:
        """Look whether a node is there."""
        ...

    async def alter_partitions(
        self, request: pb.AlterPartitionsRequest, timeout_s: float
    ) -> pb.AlterPartitionsResponse:
        """Change ISRs, give up leaderships."""
        ...

    async def reassign_partitions(
        self, request: pb.ReassignPartitionsRequest, timeout_s: float
    ) -> pb.ReassignPartitionsResponse:
        """Move partitions to other nodes, or turn that back."""
        ...

    async def allocate_producer_ids(
        self, request: pb.AllocateProducerIdsRequest, timeout_s: float
    ) -> pb.AllocateProducerIdsResponse:
        """Give out a block of producer ids."""
        ...

    async def alter_groups(self, request: pb.AlterGroupsRequest, timeout_s: float) -> pb.AlterGroupsResponse:
        """Change consumer groups."""
        ...

    async def ensure_internal_topic(
        self, request: pb.EnsureInternalTopicRequest, timeout_s: float
    ) -> pb.EnsureInternalTopicResponse:
        """Create an internal topic where it is not there yet."""
        ...

    async def create_topic(self, request: pb.CreateTopicRequest, timeout_s: float) -> pb.CreateTopicResponse:
        """Create a topic."""
        ...

    async def alter_topic(self, request: pb.AlterTopicRequest, timeout_s: float) -> pb.AlterTopicResponse:
        """Change settings of a topic."""
        ...

    async def add_partitions(self, request: pb.AddPartitionsRequest, timeout_s: float) -> pb.AddPartitionsResponse:
        """Add partitions."""
        ...

    async def delete_topic(self, request: pb.DeleteTopicRequest, timeout_s: float) -> pb.DeleteTopicResponse:
        """Delete a topic."""
        ...


class ControllerService(services.ControllerServiceServicer):
    """Handlers of the service; StatusInterceptor turns their errors into statuses."""

    def __init__(self, controller: ControllerCalls) -> None:
        self._controller = controller

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:  # noqa: N802
        """See ControllerCalls.register."""
        return await self._controller.register(request, _timeout(context))

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:  # noqa: N802
        """See ControllerCalls.heartbeat."""
        return await self._controller.heartbeat(request, _timeout(context))

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:  # noqa: N802
        """See ControllerCalls.leave."""
        return await self._controller.leave(request, _timeout(context))

    async def ReportUnreachable(  # noqa: N802
        self, request: pb.ReportUnreachableRequest, context: Context
    ) -> pb.ReportUnreachableResponse:
        """See ControllerCalls.report_unreachable."""
        return await self._controller.report_unreachable(request, _timeout(context))

    async def AlterPartitions(  # noqa: N802
        self, request: pb.AlterPartitionsRequest, context: Context
    ) -> pb.AlterPartitionsResponse:
        """See ControllerCalls.alter_partitions."""
        return await self._controller.alter_partitions(request, _timeout(context))

    async def ReassignPartitions(  # noqa: N802
        self, request: pb.ReassignPartitionsRequest, context: Context
    ) -> pb.ReassignPartitionsResponse:
        """See ControllerCalls.reassign_partitions."""
        return await self._controller.reassign_partitions(request, _timeout(context))

    async def AllocateProducerIds(  # noqa: N802
        self, request: pb.AllocateProducerIdsRequest, context: Context
    ) -> pb.AllocateProducerIdsResponse:
        """See ControllerCalls.allocate_producer_ids."""
        return await self._controller.allocate_producer_ids(request, _timeout(context))

    async def AlterGroups(self, request: pb.AlterGroupsRequest, context: Context) -> pb.AlterGroupsResponse:  # noqa: N802
        """See ControllerCalls.alter_groups."""
        return await self._controller.alter_groups(request, _timeout(context))

    async def EnsureInternalTopic(  # noqa: N802
        self, request: pb.EnsureInternalTopicRequest, context: Context
    ) -> pb.EnsureInternalTopicResponse:
        """See ControllerCalls.ensure_internal_topic."""
        return await self._controller.ensure_internal_topic(request, _timeout(context))

    async def CreateTopic(self, request: pb.CreateTopicRequest, context: Context) -> pb.CreateTopicResponse:  # noqa: N802
        """See ControllerCalls.create_topic."""
        return await self._controller.create_topic(request, _timeout(context))

    async def AlterTopic(self, request: pb.AlterTopicRequest, context: Context) -> pb.AlterTopicResponse:  # noqa: N802
        """See ControllerCalls.alter_topic."""
        return await self._controller.alter_topic(request, _timeout(context))

    async def AddPartitions(self, request: pb.AddPartitionsRequest, context: Context) -> pb.AddPartitionsResponse:  # noqa: N802
        """See ControllerCalls.add_partitions."""
        return await self._controller.add_partitions(request, _timeout(context))

    async def DeleteTopic(self, request: pb.DeleteTopicRequest, context: Context) -> pb.DeleteTopicResponse:  # noqa: N802
        """See ControllerCalls.delete_topic."""
        return await self._controller.delete_topic(request, _timeout(context))


def _timeout(context: Context) -> float:
    return min(DEFAULT_TIMEOUT_S, context.time_remaining() or DEFAULT_TIMEOUT_S)
