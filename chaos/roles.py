"""Who is who at this moment: the controller, the leaders. Asked of the nodes themselves, past all proxies."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import grpc

from penstock.chaos.cluster import Cluster
from penstock.client import Admin, ClusterDescription, PenstockError
from penstock.v1 import group_service_pb2 as pb
from penstock.v1 import group_service_pb2_grpc

ASK_TIMEOUT_MS = 1_500
"""A node that does not answer within this is passed over."""
_CHANNEL = [("grpc.use_local_subchannel_pool", 1)]


class Roles:
    """Asks. Any answer may be outdated when it is given: faults that need an exact one look again."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def describe(self, node_ids: Iterable[int] | None = None) -> ClusterDescription | None:
        """Give the newest metadata that any of these nodes (default: all) shows; None where none answers."""
        asked = self._cluster.node_ids if node_ids is None else tuple(node_ids)
        answers = await asyncio.gather(*(self._ask(node_id) for node_id in asked))
        known = [answer for answer in answers if answer is not None]
        return max(known, key=lambda answer: answer.metadata_version, default=None)

    async def controller(self) -> int | None:
        """Give the controller."""
        described = await self.describe()
        return None if described is None else described.controller

    async def leader(self, topic: str, partition: int) -> int | None:
        """Give a partition's leader."""
        described = await self.describe()
        leaders = (
            found.leader
            for known in (() if described is None else described.topics)
            if known.name == topic
            for found in known.partitions
            if found.partition == partition
        )
        return next(leaders, None)

    async def busiest_leader(self) -> int | None:
        """Give the node that leads most partitions."""
        described = await self.describe()
        led = Counter(
            partition.leader
            for topic in (() if described is None else described.topics)
            for partition in topic.partitions
            if partition.leader is not None
        )
        return min(led, key=lambda node_id: (-led[node_id], node_id), default=None)

    async def coordinator(self, group: str) -> int | None:
        """Give the coordinator of a consumer group, as the first node that answers knows it."""
        request = pb.FindCoordinatorRequest(group_id=group)
        for node_id in self._cluster.node_ids:
            async with grpc.aio.insecure_channel(self._cluster.client_address(node_id), _CHANNEL) as channel:
                stub: Any = group_service_pb2_grpc.GroupServiceStub(channel)
                try:
                    return int((await stub.FindCoordinator(request, timeout=ASK_TIMEOUT_MS / 1000)).node_id)
                except grpc.aio.AioRpcError:
                    continue
        return None

    async def _ask(self, node_id: int) -> ClusterDescription | None:
        try:
            async with Admin(self._cluster.client_address(node_id), timeout_ms=ASK_TIMEOUT_MS) as admin:
                return await admin.describe_cluster()
        except PenstockError:
            return None
