"""Consumer groups in one node, composed: coordinators, the ways to the other nodes, and the service on both listeners.

Owns how these parts are joined, and nothing else.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from penstock.node.api.consumer_service import ConsumerService
from penstock.node.api.group_forward import CoordinatorCalls
from penstock.node.api.group_service import GroupService
from penstock.node.api.leader_offsets import LeaderOffsets
from penstock.node.api.locate import Locator
from penstock.node.api.reader import MetadataReader
from penstock.node.cleanup.cleaner import WallClock
from penstock.node.config import Limits
from penstock.node.controller import ControllerClient
from penstock.node.group.coordinators import Coordinators, Places
from penstock.node.group.ends import KnownEnds
from penstock.raft.image import OFFSETS_TOPIC, GroupPartition
from penstock.raft.view import View
from penstock.storage import PartitionKey


@dataclass(frozen=True, slots=True)
class Parts:
    """What groups need of their node."""

    node_id: int
    view: View
    replicas: Places
    locator: Locator
    consumer: ConsumerService
    controller: ControllerClient
    channel_to: Callable[[int], Awaitable[grpc.aio.Channel | None]]
    wall: WallClock
    limits: Limits


class Groups:
    """Made once; `coordinators` is told of metadata, sessions and time by the broker."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._leaders = LeaderOffsets(parts.node_id, parts.locator, parts.consumer, parts.channel_to)
