"""A controller over a consensus of one, and what tests ask of it."""

import asyncio
import random
from collections.abc import Callable

import pytest

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import metadata_pb2 as metadata
from penstock.node.config import Limits
from penstock.node.controller import Controller
from penstock.protocol.errors import PenstockError
from penstock.raft.command import SUPPORTED_LEVEL
from penstock.raft.view import View
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as v1
from tests.node.fake_consensus import FakeConsensus
from tests.raft.metadata_world import CLUSTER, id16

T = 60.0


class Seat:
    """Its clock stands still."""

    def __init__(self, preferred_leader_delay_ms: int = 10_000, **limited: int) -> None:
        self.view = View()
        self.raft = FakeConsensus(self.view)
        self.now_ms = 0
        self.refusing: set[int] = set()
        limits = Limits(preferred_leader_delay_ms=preferred_leader_delay_ms, **limited)
        self.controller = Controller(
            self.raft, self.view, limits, self.refuses, random.Random(7), clock=lambda: self.now_ms
        )
        self.loop_ms = 0
        """When the event loop ran, as the controller sees it: a test machine that stands still prolongs no session."""
        self.controller._loop_ms = lambda: self.loop_ms  # type: ignore[method-assign]  # the real one looks at the loop

    async def refuses(self, node_id: int) -> bool:
        return node_id in self.refusing

    async def rule(self, nodes: int = 3) -> None:
        """Take over, and have nodes register."""
        await self.controller.start()
        self.raft.lead(self.raft.term + 1)
        await self.until(lambda: self.controller.is_active and self.view.image.feature_level > 0)
        for node_id in range(1, nodes + 1):
            await self.register(node_id)

    async def register(self, node_id: int, **fields: object) -> pb.RegisterResponse:
        return await self.controller.register(pb.RegisterRequest(registration=registration(node_id, **fields)), T)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(T):
            while not condition():  # noqa: ASYNC110  conditions of any kind, some of a fake clock
                await asyncio.sleep(0.001)

    async def create(self, name: str = "orders", **fields: object) -> v1.CreateTopicResponse:
        request = v1.CreateTopicRequest(name=name, **fields)  # type: ignore[arg-type]
        return (await self.controller.create_topic(pb.CreateTopicRequest(request=request), T)).response

    async def alter(self, name: str = "orders", **fields: object) -> v1.AlterTopicResponse:
        request = v1.AlterTopicRequest(name=name, **fields)  # type: ignore[arg-type]
        return (await self.controller.alter_topic(pb.AlterTopicRequest(request=request), T)).response

    async def add(self, name: str = "orders", **fields: object) -> v1.AddPartitionsResponse:
        request = v1.AddPartitionsRequest(name=name, **fields)  # type: ignore[arg-type]
        return (await self.controller.add_partitions(pb.AddPartitionsRequest(request=request), T)).response

    async def delete(self, **fields: object) -> v1.DeleteTopicResponse:
        request = v1.DeleteTopicRequest(**fields)  # type: ignore[arg-type]
        return (await self.controller.delete_topic(pb.DeleteTopicRequest(request=request), T)).response


def registration(node_id: int, **fields: object) -> metadata.Registration:
    address = metadata.NodeAddress(host=f"node{node_id}", port=9092)
    values: dict[str, object] = {
        "node_id": node_id,
        "cluster_id": CLUSTER,
        "store_id": id16(f"store-{node_id}"),
        "start_ids": [id16(f"start-{node_id}")],
        "client_address": address,
        "peer_address": address,
        "durability": common.DURABILITY_COMMIT,
        "version": "1",
        "supported_level": SUPPORTED_LEVEL,
        "journal_id": id16(f"journal-{node_id}"),
        "may_vote": True,
    }
    return metadata.Registration(**(values | fields))  # type: ignore[arg-type]


async def refusal(work: object) -> PenstockError:
    """The error that a request ends with."""
    with pytest.raises(PenstockError) as raised:
        await work  # type: ignore[misc]
    return raised.value
