"""Consumer groups in one node, composed: coordinators, the ways to the other nodes, and the service on both listeners.

Owns how these parts are joined, and nothing else.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc

from penstock.internal.v1 import controller_pb2, metadata_pb2
from penstock.node.api.consumer_service import ConsumerService
from penstock.node.api.group_forward import CoordinatorCalls
from penstock.node.api.group_service import GroupService
from penstock.node.api.leader_offsets import LeaderOffsets
from penstock.node.api.locate import Locator
from penstock.node.api.reader import MetadataReader
from penstock.node.cleanup.cleaner import WallClock
from penstock.node.config import NodeConfig
from penstock.node.controller import ControllerClient
from penstock.node.group.coordinator import Coordinator, Surroundings
from penstock.node.group.coordinators import Coordinators, Places
from penstock.node.group.ends import KnownEnds
from penstock.node.group.joining import GroupLimits
from penstock.node.group.members import Members
from penstock.node.group.seat import Seat
from penstock.node.group.subscription import Catalogs
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import OFFSETS_TOPIC, GroupPartition
from penstock.raft.view import View
from penstock.storage import PartitionKey

PROPOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What groups need of their node."""

    config: NodeConfig
    view: View
    replicas: Places
    locator: Locator
    consumer: ConsumerService
    controller: ControllerClient
    wall: WallClock


class Groups:
    """`coordinators` is told of metadata, sessions and time by the broker. `channel_to`: to a node's peer listener."""

    def __init__(self, parts: Parts, channel_to: Callable[[int], Awaitable[grpc.aio.Channel | None]]) -> None:
        self._parts = parts
        self._channel_to = channel_to
        self._catalogs = Catalogs()
        node_id, limits = parts.config.node_id, parts.config.limits
        self._leaders = LeaderOffsets(node_id, parts.locator, parts.consumer, channel_to)
        surroundings = Surroundings(
            image=lambda: parts.view.image,
            ends=KnownEnds(self._high_watermark, self._leaders.find),
            wall=parts.wall,
            members=self._members,
            commit_timeout_ms=limits.produce_timeout_max_ms,
            retention_ms=limits.offsets_retention_ms,
        )
        self.coordinators = Coordinators(
            node_id, parts.replicas, parts.locator.check_serving, self._ensure, surroundings
        )

    def _members(self, coordinator: Coordinator) -> Members:
        parts, limits = self._parts, self._parts.config.limits
        seat = Seat(
            parts.config.node_id,
            coordinator.index,
            coordinator.leader_epoch,
            lambda: parts.view.image,
            self._propose,
            parts.locator.is_serving,
            catalogs=self._catalogs,
        )
        bounds = GroupLimits(
            limits.group_session_timeout_min_ms,
            limits.group_session_timeout_max_ms,
            takeover_grace_ms=2 * limits.session_timeout_ms,
        )
        return Members(seat, coordinator, bounds)

    async def _propose(self, changes: Sequence[metadata_pb2.GroupChange]) -> Sequence[metadata_pb2.ChangeResult]:
        """Have groups changed, and wait until this node shows it."""
        request = controller_pb2.AlterGroupsRequest(changes=changes)
        response = await self._parts.controller.alter_groups(request, PROPOSE_TIMEOUT_S)
        await self._parts.view.wait_for(response.metadata_version, PROPOSE_TIMEOUT_S)
        return response.changes

    def handlers(self, reader: MetadataReader) -> tuple[grpc.GenericRpcHandler, grpc.GenericRpcHandler]:
        """The service for the client listener, and what it passes on for the peer listener."""
        clients, peers = (
            GroupService(self.coordinators, CoordinatorCalls(self.coordinators, channel_to), reader, self._leaders)
            for channel_to in (self._channel_to, None)
        )
        return clients.handler(), peers.peer_handler()

    def _high_watermark(self, partition: GroupPartition) -> int:
        replica = self._parts.replicas.find(PartitionKey(partition.topic_id, partition.partition))
        return 0 if replica is None else replica.high_watermark

    async def _ensure(self, timeout_s: float) -> None:
        """Make the internal topic, and wait until this node knows it."""
        response = await self._parts.controller.ensure_internal_topic(OFFSETS_TOPIC, timeout_s)
        try:
            await self._parts.view.wait_for(response.metadata_version, timeout_s)
        except TimeoutError:
            text = f"this node's metadata does not show {OFFSETS_TOPIC} yet, which has just been made"
            raise PenstockError(Reason.METADATA_BEHIND, text) from None
